"""What a host answers about tasks, nodes and VPS, for tests of the command line."""

from itertools import chain, repeat
from typing import Any

from support.clients.stub_host import Answer, StubHost, task_record

TASK = "310000000000004242"
ENDED = task_record(TASK)
NODE = {"hostname": "n1", "status": "online", "total_cores": 2, "of_the_future": [1]}
TOKEN = {"token_id": "t1", "expires_at": "2026-11-30T00:00:00Z", "token": "krj1.t1.s.f"}
VPS = "310000000000004242"
TIME = 1764000000
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbhlrtnfwdJuCYfl1gX3ZyPlAzqNo1QTDsdTcaibhIj"
SNAPSHOT = {"timestamp": TIME, "created_at": "2025-11-24T16:00:00Z", "message": "base", "size_bytes": 1 << 20}


def vps(**fields: Any) -> dict[str, Any]:
    """A VPS as the host writes it."""
    own: dict[str, Any] = {
        "task_type": "vps",
        "status": "running",
        "name": "lab",
        "command": "",
        "arguments": [],
        "exit_code": None,
        "completed_at": None,
        "vps_backend": "docker",
        "ssh_key_mode": "upload",
        "ssh_port": 22,
        "address": "172.30.0.9",
        "notice": None,
        "host_public_key": KEY,
        "restart_requested": False,
    }
    return task_record(VPS, **own) | fields


def serve(host: StubHost, *records: dict[str, Any]) -> None:
    """Serve one VPS, found by its name as well: these records one after the other, the last for ever."""
    answers = chain(map(Answer, records), repeat(Answer(records[-1])))
    host.script("GET", f"/api/status/{VPS}", lambda _: next(answers))
    host.answer("GET", "/api/tasks/resolve", {"task_id": VPS})
