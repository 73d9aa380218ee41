"""Paths, methods, fields and status codes that existing clients rely on: they may grow, never shrink.

The tables here are the contract for the parts that are built (nodes, health, tasks, logs, environments,
authentication); a part that comes later brings its rows along.
"""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.client.records import TaskRecord
from kohakuriver.wire.messages import Heartbeat, Order, Registration, TaskReport
from support.host.api import ApiHarness, play

ROUTES = """
    GET /api/auth/status
    GET /api/auth/me
    GET /api/auth/tokens
    POST /api/auth/tokens/create
    DELETE /api/auth/tokens/{}
    POST /api/register
    PUT /api/heartbeat/{}
    GET /api/nodes
    GET /api/health
    POST /api/submit
    POST /api/update
    GET /api/status/{}
    GET /api/tasks
    GET /api/tasks/my
    GET /api/tasks/{}/stdout
    GET /api/tasks/{}/stderr
    POST /api/kill/{}
    POST /api/command/{}/pause
    POST /api/command/{}/resume
    GET /api/tasks/pending-approval
    POST /api/approve/{}
    POST /api/reject/{}
    POST /api/vps/create
    POST /api/vps/stop/{}
    POST /api/vps/restart/{}
    GET /api/vps
    GET /api/vps/status
    GET /api/vps/my
    POST /api/vps/{}/assign
    DELETE /api/vps/{}/assign/{}
    GET /api/vps/vm-instances
    GET /api/vm/images/{}
    GET /api/overlay/status
    POST /api/overlay/release/{}
    POST /api/overlay/cleanup
    GET /api/overlay/ip/available
    GET /api/overlay/ip/info/{}
    POST /api/overlay/ip/reserve
    POST /api/overlay/ip/release
    GET /api/overlay/ip/reservations
    POST /api/overlay/ip/validate
    GET /api/overlay/ip/stats
    GET /api/vps/{}/assignments
    POST /api/vps/{}/assignments
    DELETE /api/vps/{}/assignments
    GET /api/vps/snapshots/{}
    POST /api/vps/snapshots/{}
    DELETE /api/vps/snapshots/{}
    GET /api/vps/snapshots/{}/latest
    DELETE /api/vps/snapshots/{}/{}
    GET /api/docker/host/containers
    GET /api/fs/{}/list
    GET /api/fs/{}/read
    POST /api/fs/{}/write
    POST /api/fs/{}/mkdir
    POST /api/fs/{}/rename
    DELETE /api/fs/{}/delete
    GET /api/fs/{}/stat
    GET /api/fs/container/{}/list
    GET /api/fs/container/{}/read
    POST /api/fs/container/{}/write
    POST /api/fs/container/{}/mkdir
    POST /api/fs/container/{}/rename
    DELETE /api/fs/container/{}/delete
    GET /api/fs/container/{}/stat
    POST /api/docker/host/create
    POST /api/docker/host/start/{}
    POST /api/docker/host/stop/{}
    POST /api/docker/host/delete/{}
    POST /api/docker/host/migrate/{}
    GET /api/docker/list
    POST /api/docker/create_tar/{}
    GET /api/docker/container/{}
    DELETE /api/docker/container/{}
    GET /api/events
    GET /metrics
    GET /healthz
    GET /readyz
"""

SUBMIT_FIELDS = """
    task_type command arguments env_vars required_cores required_gpus required_memory_bytes targets
    container_name registry_image privileged additional_mounts ip_reservation_token target_numa_node_id
"""
NODE_FIELDS = """
    hostname url status total_cores memory_total_bytes last_heartbeat cpu_percent memory_percent
    memory_used_bytes current_avg_temp current_max_temp numa_topology gpu_info vm_capable vfio_gpus
    runner_version
"""
WIRE_FIELDS: dict[type, str] = {
    Registration: "hostname url total_cores total_ram_bytes numa_topology gpu_info",
    Heartbeat: """
        running_tasks killed_tasks cpu_percent memory_percent memory_used_bytes memory_total_bytes
        current_avg_temp current_max_temp gpu_info vm_capable vfio_gpus runner_version
    """,
    TaskReport: "task_id status exit_code message started_at completed_at ssh_port",
    Order: """
        task_id command arguments env_vars required_cores required_gpus required_memory_bytes
        target_numa_node_id container_name registry_image working_dir stdout_path stderr_path reserved_ip
        attempt privileged additional_mounts
    """,
}
CREATE_FIELDS = """
    name required_cores required_gpus required_memory_bytes target_hostname target_numa_node_id
    container_name registry_image ssh_key_mode ssh_public_key ip_reservation_token vps_backend vm_image
    vm_disk_size memory_mb
"""
WRITE_FIELDS = "path content encoding create_parents"
RENAME_FIELDS = "source destination overwrite"
STATUS_CODES = {
    ("post", "/api/submit"): "202",
    ("post", "/api/kill/{}"): "202",
    ("post", "/api/vps/create"): "200",
    ("post", "/api/vps/stop/{}"): "202",
    ("post", "/api/vps/restart/{}"): "202",
}


def _described(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}

    async def scenario(harness: ApiHarness) -> None:
        document = (await harness.call(None, "GET", "/openapi.json")).json()
        found[("", "")] = document["components"]["schemas"]
        for path, methods in document["paths"].items():
            plain = "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
            for method, operation in methods.items():
                found[(method, plain)] = operation

    play(folder, scenario)
    return found


def test_every_path_that_clients_use_is_there(tmp_path: Path) -> None:
    described = _described(tmp_path)
    for line in ROUTES.split("\n"):
        if line.strip():
            method, path = line.split()
            assert (method.lower(), path) in described, line
    for (method, path), status in STATUS_CODES.items():
        assert status in described[(method, path)]["responses"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/submit", SUBMIT_FIELDS),
        ("/api/vps/create", CREATE_FIELDS),
        ("/api/fs/{}/write", WRITE_FIELDS),
        ("/api/fs/{}/mkdir", "path parents create_parents"),
        ("/api/fs/{}/rename", RENAME_FIELDS),
        ("/api/fs/container/{}/write", WRITE_FIELDS),
    ],
)
def test_a_submission_takes_the_fields_that_clients_send(tmp_path: Path, path: str, fields: str) -> None:
    described = _described(tmp_path)
    schema = described[("post", path)]["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rsplit("/", 1)[1] if "$ref" in schema else None
    properties = described[("", "")][name]["properties"] if name else schema["properties"]
    assert set(fields.split()) <= set(properties)


def test_a_node_and_a_submission_answer_with_the_fields_that_clients_read(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        (node,) = (await harness.call("vera", "GET", "/api/nodes")).json()
        assert set(NODE_FIELDS.split()) <= set(node)
        body = {"task_type": "command", "command": "true", "targets": ["n1"]}
        answer = await harness.call("otto", "POST", "/api/submit", json=body)
        assert answer.status_code == 202
        assert {"message", "task_ids", "assigned_node"} <= set(answer.json())
        assert all(isinstance(task_id, str) for task_id in answer.json()["task_ids"])
        health = (await harness.call("vera", "GET", "/api/health")).json()
        assert set(health) == {"nodes", "aggregate"}

    play(tmp_path, scenario)


@pytest.mark.parametrize("message", WIRE_FIELDS, ids=lambda message: message.__name__)
def test_messages_of_runners_have_the_fields_of_the_interface(message: type) -> None:
    assert set(WIRE_FIELDS[message].split()) <= set(message.__struct_fields__)  # type: ignore[attr-defined]


def test_a_task_is_described_with_every_field_that_clients_read(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        document = (await harness.call(None, "GET", "/openapi.json")).json()
        for name in ("TaskRecord", "VpsRecord"):
            described = document["components"]["schemas"][name]
            assert set(TaskRecord.__struct_fields__) <= set(described["required"])
            assert not any("default" in field for field in described["properties"].values())

    play(tmp_path, scenario)
