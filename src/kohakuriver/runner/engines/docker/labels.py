"""Labels on what this engine makes, and the filters that find it again."""

import json
from collections.abc import Mapping

from kohakuriver.models.enums import TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import (
    LABEL_ATTEMPT,
    LABEL_MANAGED,
    LABEL_NODE,
    LABEL_SANDBOX,
    LABEL_SNAPSHOT,
    LABEL_TASK_ID,
    LABEL_TASK_TYPE,
)

# Whether the workload could change its network, or is a session, whose network is its own: a sandbox that
# served such a one is never used again.
LABEL_NETWORK_RIGHTS = "kohakuriver.network_rights"
# On a sandbox: which runner's life made it, since names are chosen anew in each.
LABEL_MAKER = "kohakuriver.maker"
_FOR_SESSION = "session"


def workload_labels(
    node: str, task_id: TaskId, attempt: int, task_type: TaskType, *, network_rights: bool
) -> dict[str, str]:
    return {
        LABEL_MANAGED: "true",
        LABEL_NODE: node,
        LABEL_TASK_ID: str(task_id),
        LABEL_ATTEMPT: str(attempt),
        LABEL_TASK_TYPE: task_type.value,
        LABEL_NETWORK_RIGHTS: str(network_rights).lower(),
    }


def snapshot_labels(task_id: TaskId) -> dict[str, str]:
    """An image takes over its container's labels; with these it does not look like a workload."""
    blank = (
        LABEL_MANAGED,
        LABEL_NODE,
        LABEL_TASK_ID,
        LABEL_ATTEMPT,
        LABEL_TASK_TYPE,
        LABEL_NETWORK_RIGHTS,
    )
    return {**dict.fromkeys(blank, ""), LABEL_SNAPSHOT: str(task_id)}


def sandbox_labels(node: str, maker: str, *, for_session: bool = False) -> dict[str, str]:
    return {
        LABEL_MANAGED: "true",
        LABEL_NODE: node,
        LABEL_MAKER: maker,
        LABEL_SANDBOX: _FOR_SESSION if for_session else "true",
    }


def is_session(labels: Mapping[str, str]) -> bool:
    return labels.get(LABEL_TASK_TYPE) == TaskType.VPS.value


def is_for_session(labels: Mapping[str, str]) -> bool:
    """Of a sandbox: whether it was made for a session, and so is in no pool."""
    return labels.get(LABEL_SANDBOX) == _FOR_SESSION


def is_ours(labels: Mapping[str, str] | None, node: str) -> bool:
    return labels is not None and labels.get(LABEL_MANAGED) == "true" and labels.get(LABEL_NODE) == node


def ours_filter(node: str) -> str:
    """Value of the `filters` parameter that lists all containers of this node, sandboxes included."""
    return json.dumps({"label": [f"{LABEL_MANAGED}=true", f"{LABEL_NODE}={node}"]})
