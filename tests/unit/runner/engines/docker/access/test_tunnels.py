"""Which sandbox a tunnel leads into: the workload's own, and no other's that took its place."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kohakuriver.models.errors import NotFound, SwitchedOff, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.docker.access.ports import DockerPorts
from kohakuriver.runner.tunnels.client_program import SWITCHED_OFF

TASK = TaskId(7)


class Parts:
    """What there is of a node. `reading`: what happens while a sandbox is looked at."""

    def __init__(self) -> None:
        self.sandbox = SimpleNamespace(id="one", has_network=True, address="172.30.0.2")
        self.known: dict[TaskId, Any] = {TASK: SimpleNamespace(sandbox=self.sandbox, is_vps=False)}
        self.ready = {"one"}
        self.opened: list[str] = []
        self.why_none = ""
        self.reading: Callable[[], object] = lambda: None

    def ports(self) -> DockerPorts:
        return DockerPorts(self, self, self)  # type: ignore[arg-type]

    async def find(self, task_id: TaskId, _attempt: int) -> Any:
        if task_id not in self.known:
            raise NotFound("no workload")
        return self.known[task_id]

    def get(self, task_id: TaskId) -> Any:
        return self.known.get(task_id)

    def is_ready(self, sandbox: Any) -> bool:
        return sandbox.id in self.ready

    async def read(self, sandbox_id: str) -> Any:
        await asyncio.sleep(0)
        self.reading()
        self.ready.add(sandbox_id)
        return self.sandbox

    def check_offered(self) -> None:
        if self.why_none:
            raise SwitchedOff(self.why_none)

    def open_tunnel(self, sandbox_id: str, _task_id: TaskId) -> str:
        self.opened.append(sandbox_id)
        return sandbox_id


def test_it_leads_into_the_sandbox_of_the_workload() -> None:
    parts = Parts()
    asyncio.run(parts.ports().open_tunnel(TASK))
    with pytest.raises(NotFound):
        asyncio.run(parts.ports().open_tunnel(TaskId(8)))
    assert parts.opened == ["one"]


def test_a_workload_that_ends_meanwhile_leaves_no_way_into_who_gets_its_sandbox() -> None:
    parts = Parts()
    parts.ready.clear()
    parts.reading = lambda: parts.known.pop(TASK)
    with pytest.raises(NotFound, match="has ended"):
        asyncio.run(parts.ports().open_tunnel(TASK))
    assert parts.opened == []


def test_without_network_or_tunnels_there_is_none() -> None:
    parts = Parts()
    parts.sandbox.has_network = False
    with pytest.raises(Unavailable, match="network"):
        asyncio.run(parts.ports().open_tunnel(TASK))
    parts.why_none = SWITCHED_OFF
    with pytest.raises(SwitchedOff, match="TUNNEL_ENABLED"):
        asyncio.run(parts.ports().open_tunnel(TASK))
    assert parts.opened == []
