"""Calls about VPSs. A VPS is a task too: `TasksApi` kills, pauses and resumes it.

`stop`, `restart` and `restore` answer when the host has taken the request; `watch` shows what becomes of it.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from kohakuriver.client.connection.transport import LONG_WORK_SECONDS, Transport
from kohakuriver.client.errors import TRANSIENT
from kohakuriver.client.records import Message, Reply
from kohakuriver.client.vps_records import (
    Assigned,
    Assignment,
    CreatedVps,
    GatewayRecord,
    SnapshotRecord,
    Snapshots,
    VpsCreation,
    VpsRecord,
)
from kohakuriver.client.waiting import Patience
from kohakuriver.models.enums import TaskType
from kohakuriver.models.errors import NotFound
from kohakuriver.pauses import growing_pauses

_PAGE = 1000
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
# Hosts of before answer the bare lists.
_SNAPSHOTS: Any = Snapshots | list[SnapshotRecord]
_ASSIGNMENTS: Any = Assigned | list[Assignment]


class VpsApi:
    """`/api/vps…`: life and assignments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, creation: VpsCreation) -> Reply[CreatedVps]:
        return self._transport.fetch(CreatedVps, "POST", "/api/vps/create", body=creation)

    def page(self, limit: int = 100, offset: int = 0, *, usable: bool = False) -> Reply[list[VpsRecord]]:
        """Return VPSs, newest first; with `usable` those that one may use."""
        params = {"limit": limit, "offset": offset or None, "usable": "true" if usable else None}
        return self._transport.fetch(list[VpsRecord], "GET", "/api/vps", params=params)

    def everything(self) -> Reply[list[VpsRecord]]:
        """Return all VPSs, however many there are, newest first."""
        found: dict[str, tuple[VpsRecord, Any]] = {}
        offset = 0
        while True:
            page = self.page(_PAGE, offset)
            # New ones push others onto the next page, where they come again.
            known = zip(page.value, page.raw, strict=True)
            found |= {record.task_id: (record, raw) for record, raw in known}
            if len(page.value) < _PAGE:
                return Reply([record for record, _ in found.values()], [raw for _, raw in found.values()])
            offset += _PAGE

    def active(self) -> Reply[list[VpsRecord]]:
        """Return the VPSs that run, are being started, or wait for room, newest first."""
        return self._transport.fetch(list[VpsRecord], "GET", "/api/vps/status")

    def gateway(self) -> Reply[GatewayRecord]:
        """Return where the SSH gateway is and how to know it."""
        return self._transport.fetch(GatewayRecord, "GET", "/api/vps/gateway")

    def status(self, task_id: str) -> Reply[VpsRecord]:
        """Return the VPS; raises NotFound for a command task as well."""
        reply = self._transport.fetch(VpsRecord, "GET", f"/api/status/{task_id}")
        if reply.value.task_type != TaskType.VPS:
            raise NotFound(f"task {task_id} is no VPS; `kohakuriver task status {task_id}` shows it")
        return reply

    def watch(
        self, task_id: str, patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Reply[VpsRecord]]:
        """Yield the VPS again and again, at first quickly; for who waits for something that it does.

        Raises the host's failure when it stays unreachable past `patience`.
        """
        patience = patience or Patience()
        pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, growth=1.2, jitter=0)
        while True:
            try:
                reply = self.status(task_id)
            except TRANSIENT as error:
                patience.bear(error)
                continue
            patience.reset()
            yield reply
            sleep(next(pauses))

    def stop(self, task_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/vps/stop/{task_id}")

    def restart(self, task_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/vps/restart/{task_id}")

    def delete(self, task_id: str) -> Reply[Message]:
        """Delete a VPS that has ended, for good."""
        path = f"/api/vps/{task_id}"
        return self._transport.fetch(Message, "DELETE", path, timeout_seconds=LONG_WORK_SECONDS)

    def assignments(self, task_id: str) -> Reply[list[Assignment]]:
        reply = self._transport.fetch(_ASSIGNMENTS, "GET", f"/api/vps/{task_id}/assignments")
        return (
            Reply(reply.value.assignments, reply.raw["assignments"]) if isinstance(reply.raw, dict) else reply
        )

    def assign(self, task_id: str, user_name: str) -> Reply[Message]:
        return self._transport.fetch(
            Message, "POST", f"/api/vps/{task_id}/assignments", body={"username": user_name}
        )

    def unassign(self, task_id: str, user_name: str) -> Reply[Message]:
        return self._transport.fetch(
            Message, "DELETE", f"/api/vps/{task_id}/assignments", params={"username": user_name}
        )


class SnapshotsApi:
    """`/api/vps/snapshots/…`. All but the list may take minutes, and answer when they are done."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def all(self, task_id: str) -> Reply[list[SnapshotRecord]]:
        """Return the snapshots of a VPS, newest first."""
        reply = self._transport.fetch(_SNAPSHOTS, "GET", _path_of(task_id))
        return Reply(reply.value.snapshots, reply.raw["snapshots"]) if isinstance(reply.raw, dict) else reply

    def create(self, task_id: str, message: str = "") -> Reply[SnapshotRecord]:
        return self._transport.fetch(
            SnapshotRecord,
            "POST",
            _path_of(task_id),
            body={"message": message},
            timeout_seconds=LONG_WORK_SECONDS,
        )

    def delete(self, task_id: str, timestamp: int) -> Reply[Message]:
        return self._delete(f"{_path_of(task_id)}/{timestamp}")

    def delete_all(self, task_id: str) -> Reply[Message]:
        return self._delete(_path_of(task_id))

    def restore(self, task_id: str, timestamp: int, node: str | None = None) -> Reply[Message]:
        """Start the VPS from a snapshot, on another `node` if one is given."""
        return self._transport.fetch(
            Message,
            "POST",
            f"{_path_of(task_id)}/{timestamp}/restore",
            body={"target_hostname": node} if node else {},
            timeout_seconds=LONG_WORK_SECONDS,
        )

    def _delete(self, path: str) -> Reply[Message]:
        return self._transport.fetch(Message, "DELETE", path, timeout_seconds=LONG_WORK_SECONDS)


def _path_of(task_id: str) -> str:
    return f"/api/vps/snapshots/{task_id}"
