"""The engine calls that concern workloads' containers, with facts as values; no policy.

Only containers that are our owner's are looked at; another of that name is a Conflict.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.times import engine_time
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import (
    LABEL_ATTEMPT,
    LABEL_NODE,
    LABEL_SANDBOX,
    LABEL_TASK_ID,
    LABEL_TUNNEL,
    SANDBOX_NAME,
    task_container_name,
    vps_container_name,
)
from kohakuriver.models.numbers import whole_number
from kohakuriver.runner.engines.contract.engine import FoundWorkload, WorkloadState
from kohakuriver.runner.engines.docker.inside.own_folder import read_process
from kohakuriver.runner.engines.docker.labels import (
    LABEL_NETWORK_RIGHTS,
    Owner,
    is_for_vps,
    is_vps,
    managed_filter,
)

_STATES = {
    "created": WorkloadState.CREATED,
    "running": WorkloadState.RUNNING,
    "restarting": WorkloadState.RUNNING,
    "paused": WorkloadState.PAUSED,
    "exited": WorkloadState.EXITED,
    "dead": WorkloadState.EXITED,
    "removing": WorkloadState.EXITED,
}
_JOINED = "container:"
_LATE_NEWS = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class Listed:
    """One container of this node as a listing shows it; `task_id` None: a sandbox, on `network`.

    `for_vps`: a sandbox that was made for a VPS, which itself `is_vps`. `tunnel_key`: the folder of a
    sandbox's secret.
    """

    id: str
    task_id: TaskId | None
    attempt: int
    state: WorkloadState
    sandbox_id: str | None
    network_rights: bool
    network: str = ""
    for_vps: bool = False
    is_vps: bool = False
    tunnel_key: str = ""

    @property
    def workload(self) -> FoundWorkload | None:
        return None if self.task_id is None else FoundWorkload(self.task_id, self.attempt, self.state)


@dataclass(frozen=True, slots=True)
class Inspected:
    id: str
    attempt: int
    state: WorkloadState
    exit_code: int
    oom_killed: bool
    started_at: datetime | None
    finished_at: datetime | None
    error: str
    sandbox_id: str | None
    network_rights: bool
    command: str
    working_dir: str
    pid: int
    """Of its first process; 0 where none runs."""
    is_vps: bool = False
    goes_by_itself: bool = False
    """Into its working directory, with its user's rights; see `own_folder`."""
    env: tuple[str, ...] = field(default=(), repr=False)
    """`NAME=value`, the image's and the container's own."""


class WorkloadContainers:
    def __init__(self, api: DockerApi, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self.ending: set[str] = set()
        """Containers whose processes were told to end: what ends in them now ends with its workload."""

    async def list_all(self) -> list[Listed]:
        """Everything of this node: workloads and sandboxes."""
        return [_listed(row) for row in await self._managed() if self._owner.owns(row["Labels"])]

    async def list_of_others(self) -> list[tuple[Listed, TaskId]]:
        """Workloads of our cluster that stand under other nodes' names."""
        rows = [row for row in await self._managed() if self._owner.is_of_cluster(row["Labels"])]
        listed = [_listed(row) for row in rows if not self._owner.owns(row["Labels"])]
        return [(row, row.task_id) for row in listed if row.task_id is not None]

    async def list_under(self, nodes: Set[str]) -> list[Listed]:
        """Everything of our cluster under these nodes' names."""
        rows = [row for row in await self._managed() if self._owner.is_of_cluster(row["Labels"])]
        return [_listed(row) for row in rows if row["Labels"].get(LABEL_NODE) in nodes]

    async def _managed(self) -> list[dict[str, Any]]:
        """All that KohakuRiver made on this engine.

        A container has the labels of its image too, and those may be anybody's words; names are not.
        """
        rows = await self._api.json(
            "GET", "containers/json", params={"all": "1", "filters": managed_filter()}
        )
        return [row for row in rows if _has_name_of_ours(row)]

    async def inspect(self, reference: str) -> Inspected:
        """`reference`: id or name. Raises NotFound, Conflict for a container that is not ours."""
        return self._inspected(await self._api.json("GET", f"containers/{reference}/json"))

    async def find(self, task_id: TaskId) -> Inspected:
        """The workload of a task, whichever kind it is; raises like `inspect`."""
        try:
            return await self.inspect(vps_container_name(task_id))
        except NotFound:
            return await self.inspect(task_container_name(task_id))

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        return await self._api.create_container(name, body)

    async def start(self, container_id: str) -> None:
        await self._api.json("POST", f"containers/{container_id}/start")

    async def wait_until_stopped(self, container_id: str) -> None:
        """Return when it does not run (any more); at once for one that never ran."""
        await self._api.json("POST", f"containers/{container_id}/wait", params={"condition": "not-running"})

    async def wait_for_next_exit(self, container_id: str) -> None:
        """Return when it has ended, also if it has not been started yet."""
        await self._api.json("POST", f"containers/{container_id}/wait", params={"condition": "next-exit"})

    async def memory_ran_out(self, container_id: str, ended: datetime) -> bool:
        """Whether the engine heard of the OOM killer around the end; waits a moment for late news."""
        return await self._heard(container_id, "oom", ended, until=ended + _LATE_NEWS)

    async def end_was_seen(self, container_id: str, ended: datetime) -> bool:
        """Whether the engine was there when it ended, and so knows how; `ended` as the engine tells it.

        Its events are forgotten when it ends, and it makes none of what it finds dead when it comes back.
        """
        return await self._heard(container_id, "die", ended)

    async def _heard(
        self, container_id: str, event: str, ended: datetime, until: datetime | None = None
    ) -> bool:
        """Whether the engine reports such an event since shortly before the end; `until` None: or soon.

        All times are the engine's own, since clocks jump. An engine that refuses the question knows nothing.
        """
        wanted = json.dumps({"container": [container_id], "event": [event]})
        params = {"since": _event_time(ended - _LATE_NEWS), "filters": wanted}
        if until is not None:
            params["until"] = _event_time(until)
        with contextlib.suppress(EngineFault, TimeoutError):
            # Without `until` the engine goes on for ever, and it waits for one, which is far away once its
            # machine's clock was set back.
            async with asyncio.timeout(4 * _LATE_NEWS.total_seconds()):
                async with self._api.stream("GET", "events", params=params) as response:
                    return bool(await response.content.read(1))
        return False

    async def signal(self, container_id: str, name: str) -> None:
        """Raises Conflict when it does not run."""
        await self._api.json("POST", f"containers/{container_id}/kill", params={"signal": name})

    async def pause(self, container_id: str) -> None:
        await self._api.json("POST", f"containers/{container_id}/pause")

    async def unpause(self, container_id: str) -> None:
        await self._api.json("POST", f"containers/{container_id}/unpause")

    async def remove(self, container_id: str) -> None:
        """Remove it with its anonymous volumes, running or not."""
        self.ending.discard(container_id)
        try:
            await self._api.json("DELETE", f"containers/{container_id}", params={"force": "1", "v": "1"})
        except NotFound:
            return
        except Conflict as error:
            if "already in progress" not in str(error):
                raise
            await self._api.json("POST", f"containers/{container_id}/wait", params={"condition": "removed"})

    def _inspected(self, facts: dict[str, Any]) -> Inspected:
        labels, state = facts["Config"]["Labels"] or {}, facts["State"]
        if not self._owner.owns(labels) or LABEL_ATTEMPT not in labels:
            raise Conflict(
                f"a container {facts['Name'].lstrip('/')} exists that this runner did not make; "
                "remove or rename it"
            )
        words = [*(facts["Config"].get("Entrypoint") or [""]), *(facts["Config"].get("Cmd") or ())]
        command, working_dir, goes_by_itself = read_process(words, facts["Config"]["WorkingDir"])
        return Inspected(
            id=facts["Id"],
            attempt=int(labels[LABEL_ATTEMPT]),
            state=_STATES.get(state["Status"], WorkloadState.EXITED),
            exit_code=int(state["ExitCode"]),
            oom_killed=bool(state["OOMKilled"]),
            started_at=engine_time(state["StartedAt"]),
            finished_at=engine_time(state["FinishedAt"]),
            error=state["Error"],
            sandbox_id=_joined(facts["HostConfig"]["NetworkMode"]),
            network_rights=labels.get(LABEL_NETWORK_RIGHTS) != "false",
            command=command,
            working_dir=working_dir,
            goes_by_itself=goes_by_itself,
            pid=int(state["Pid"]),
            is_vps=is_vps(labels),
            env=tuple(facts["Config"].get("Env") or ()),
        )


def _event_time(moment: datetime) -> str:
    return f"{moment.timestamp():.6f}"


def _has_name_of_ours(row: dict[str, Any]) -> bool:
    names = {name.removeprefix("/") for name in row["Names"] or ()}
    text = row["Labels"].get(LABEL_TASK_ID)
    if text is None:
        return LABEL_SANDBOX in row["Labels"] and any(name.startswith(SANDBOX_NAME) for name in names)
    number = whole_number(text, 19)
    if number is None:
        return False
    task_id = TaskId(number)
    return not names.isdisjoint((task_container_name(task_id), vps_container_name(task_id)))


def _listed(row: dict[str, Any]) -> Listed:
    labels = row["Labels"]
    task = labels.get(LABEL_TASK_ID)
    return Listed(
        id=row["Id"],
        task_id=TaskId(int(task)) if task is not None else None,
        attempt=int(labels.get(LABEL_ATTEMPT, "0")),
        state=_STATES.get(row["State"], WorkloadState.EXITED),
        sandbox_id=_joined(row["HostConfig"]["NetworkMode"]),
        network_rights=labels.get(LABEL_NETWORK_RIGHTS) != "false",
        network=row["HostConfig"]["NetworkMode"],
        for_vps=is_for_vps(labels),
        is_vps=is_vps(labels),
        tunnel_key=labels.get(LABEL_TUNNEL, ""),
    )


def unused_sandboxes(listed: Iterable[Listed]) -> list[Listed]:
    """Those that serve none of the workloads listed with them."""
    rows = list(listed)
    in_use = {row.sandbox_id for row in rows if row.task_id is not None}
    return [row for row in rows if row.task_id is None and row.id not in in_use]


def _joined(network_mode: str) -> str | None:
    return network_mode.removeprefix(_JOINED) if network_mode.startswith(_JOINED) else None
