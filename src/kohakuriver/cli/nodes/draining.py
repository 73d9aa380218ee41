"""A node that is being drained: what is there still, and waiting until nothing is."""

import time
from typing import TYPE_CHECKING

from kohakuriver.cli.console.progress import StatusLine
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.transitions import HOLDING

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import NodeRecord, TaskRecord

_LOOK_SECONDS = 1.0


def wait_until_empty(client: "HostClient", hostname: str) -> None:
    """Return when the node is empty; raises Conflict if somebody opens it again, NotFound if it is gone."""
    from kohakuriver.client.errors import TRANSIENT
    from kohakuriver.client.waiting import Patience

    line, patience = StatusLine(), Patience()
    while True:
        try:
            node = _node(client, hostname)
        except TRANSIENT as error:
            line.show("the host does not answer; trying again")
            patience.bear(error)
            continue
        patience.reset()
        if not node.draining:
            raise Conflict(f"node {hostname} is not being drained any more; somebody undrained it")
        if not node.tasks:
            line.clear()
            return
        line.show(f"waiting for {node.tasks} tasks on {hostname}")
        time.sleep(_LOOK_SECONDS)


def tasks_left(client: "HostClient", hostname: str) -> "list[TaskRecord]":
    """The tasks that a node holds, newest first."""
    held = [task for state in HOLDING for task in client.tasks.page(state, hostname).value]
    return sorted(held, key=lambda task: task.task_id, reverse=True)


def _node(client: "HostClient", hostname: str) -> "NodeRecord":
    for node in client.nodes.all().value:
        if node.hostname == hostname and node.status is not NodeStatus.PENDING:
            return node
    raise NotFound(f"node {hostname} was removed while it was drained")
