"""Answers as clients of KohakuRiver 1.0 parse them: its fields and their types, checked without leniency."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.enums import TaskState
from kohakuriver.wire.messages import GpuInfo, NodeFigures, NumaInfo, encode
from kohakuriver.wire.snapshots import SnapshotState
from support.host.api import ApiHarness, play

Kind = TypeVar("Kind")
PUBLIC = new_key_pair("user@laptop").public
GPU = GpuInfo(
    gpu_id=0,
    uuid="GPU-0",
    name="Card",
    memory_total_bytes=24 << 30,
    memory_used_bytes=1 << 30,
    power_usage_watts=50.5,
    power_limit_watts=300,
)


class Earlier(BaseModel):
    """Strict: a number as text, or null where 1.0 says there is a value, does not validate."""

    model_config = ConfigDict(strict=True)


class Me(Earlier):
    id: int
    username: str
    display_name: str | None
    role: str
    is_active: bool
    created_at: str


class Token(Earlier):
    id: int
    name: str
    created_at: str
    last_used: str | None


class Gpu(Earlier):
    gpu_id: int
    name: str
    memory_total_mib: int
    memory_used_mib: int
    mem_utilization: float | None
    graphics_clock_mhz: int | None
    mem_clock_mhz: int | None
    fan_speed: float | None
    power_usage_mw: int
    power_limit_mw: int


class Node(Earlier):
    hostname: str
    url: str | None
    status: str
    total_cores: int
    available_cores: int
    cores_in_use: int
    memory_total_bytes: int
    last_heartbeat: str | None
    cpu_percent: float | None
    memory_percent: float | None
    memory_used_bytes: int | None
    current_avg_temp: float | None
    current_max_temp: float | None
    numa_topology: dict[str, Any] | None
    gpu_info: list[Gpu] | None
    vm_capable: bool
    vfio_gpus: list[Any] | None
    runner_version: str | None


class Task(Earlier):
    task_id: str
    task_type: str
    status: str
    docker_image_name: str
    docker_privileged: bool
    docker_mount_dirs: list[str]
    ssh_port: Annotated[int | None, Field()]
    owner_id: int | None
    owner_username: str | None
    approval_status: str | None
    approved_at: str | None
    approved_by_id: int | None
    approved_by_username: str | None
    rejection_reason: str | None
    vps_backend: str | None
    vm_image: str | None
    vm_disk_size: str | None
    vm_ip: str | None


class Assignee(Earlier):
    user_id: int
    username: str


class Vps(Task):
    name: str | None
    ssh_host: str
    ssh_user: str
    ssh_key_mode: str
    assignees: list[Assignee]


class Snapshot(Earlier):
    task_id: str
    timestamp: int
    tag: str
    message: str


class Snapshots(Earlier):
    task_id: str
    snapshots: list[Snapshot]
    count: int


class Version(Earlier):
    timestamp: int
    tarball: str
    size_bytes: int


class Tarballs(Earlier):
    latest_timestamp: int
    latest_tarball: str
    all_versions: list[Version]


class Container(Earlier):
    id: str
    name: str
    env_name: str
    image: str
    status: str
    created: str


class Point(Earlier):
    hostname: str
    status: str
    last_heartbeat: str
    total_cores: int
    numa_topology: dict[str, Any] | None


class Aggregate(Earlier):
    totalNodes: int
    onlineNodes: int
    totalCores: int
    totalMemBytes: int
    usedMemBytes: int
    avgCpuPercent: float
    avgMemPercent: float
    maxAvgCpuTemp: float | None
    maxMaxCpuTemp: float | None
    lastUpdated: str


class Health(Earlier):
    nodes: list[list[Point]]
    aggregate: list[Aggregate]


async def read(harness: ApiHarness, kind: type[Kind], who: str, path: str, **params: Any) -> Kind:
    answer = await harness.call(who, "GET", path, params=params)
    assert answer.status_code == 200, answer.text
    return TypeAdapter(kind).validate_json(answer.content, strict=True)


def test_who_one_is_and_ones_tokens(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        me = await read(harness, Me, "otto", "/api/auth/me")
        assert (me.username, me.role, me.is_active) == ("otto", "operator", True)
        assert datetime.fromisoformat(me.created_at).tzinfo is not None
        assert (await read(harness, dict[str, Any], "otto", "/api/auth/status"))[
            "session_expire_hours"
        ] == 720
        made = (await harness.call("otto", "POST", "/api/auth/tokens/create", json={"name": "ci"})).json()
        own, new = await read(harness, list[Token], "otto", "/api/auth/tokens")
        assert (new.id, new.name, new.last_used) == (made["id"], "ci", None)
        assert own.last_used is not None
        assert new.id > own.id
        assert (await harness.call("otto", "DELETE", f"/api/auth/tokens/{new.id + 1}")).status_code == 404
        assert (await harness.call("otto", "DELETE", f"/api/auth/tokens/{new.id}")).status_code == 200
        assert [token.id for token in await read(harness, list[Token], "otto", "/api/auth/tokens")] == [
            own.id
        ]
        again = (await harness.call("otto", "POST", "/api/auth/tokens/create", json={"name": "ci"})).json()
        assert again["id"] == new.id + 1
        by_its_own_id = f"/api/auth/tokens/{again['token_id']}"
        assert (await harness.call("otto", "DELETE", by_its_own_id)).status_code == 200

    play(tmp_path, scenario)


def test_nodes_and_their_health(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        numa = [NumaInfo(id=0, cpus=[0, 1], memory_bytes=1 << 30)]
        await harness.room.join("n1", cores=8, numa_topology=numa, gpu_info=[GPU])
        sample = NodeFigures(
            at=datetime.now(UTC),
            cpu_percent=10,
            memory_percent=50,
            memory_used_bytes=1,
            memory_total_bytes=2,
        )
        await harness.room.beat("n1", gpu_info=[GPU], history=[sample])
        await harness.submit(required_cores=3)
        await harness.room.accept_orders()
        (node,) = await read(harness, list[Node], "vera", "/api/nodes")
        assert (node.total_cores, node.cores_in_use, node.available_cores) == (8, 3, 5)
        assert node.numa_topology is not None
        assert node.numa_topology["0"]["cpus"] == [0, 1]
        assert node.gpu_info is not None
        (gpu,) = node.gpu_info
        assert (gpu.memory_total_mib, gpu.memory_used_mib) == (24 << 10, 1 << 10)
        assert (gpu.power_usage_mw, gpu.power_limit_mw) == (50_500, 300_000)
        health = await read(harness, Health, "vera", "/api/health")
        (point,) = health.nodes[-1]
        assert (point.hostname, point.status, point.total_cores) == ("n1", "online", 8)
        assert point.numa_topology is not None
        newest = health.aggregate[-1]
        assert (newest.totalNodes, newest.onlineNodes, newest.totalCores) == (1, 1, 8)
        (latest,) = await read(harness, list[Point], "vera", "/api/health", hostname="n1")
        assert latest.numa_topology is not None

    play(tmp_path, scenario)


def test_tasks_whatever_became_of_them(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        direct = await harness.submit("otto", registry_image="debian:12")
        asked = await harness.submit("ursula")
        refused = await harness.submit("ursula")
        waiting = await harness.submit("ursula")
        await harness.call("otto", "POST", f"/api/approve/{asked}")
        await harness.call("otto", "POST", f"/api/reject/{refused}", params={"reason": "not now"})
        listed = {
            task.task_id: task for task in await read(harness, list[Task], "vera", "/api/tasks", limit=10_000)
        }
        for task_id, task in listed.items():
            assert await read(harness, Task, "vera", f"/api/status/{task_id}") == task
        assert listed[direct].docker_image_name == "debian:12"
        assert listed[asked].docker_image_name == "kohakuriver-base"
        assert (listed[direct].owner_username, listed[direct].approval_status) == ("otto", None)
        assert listed[waiting].approval_status == "pending"
        assert (listed[asked].approval_status, listed[asked].approved_by_username) == ("approved", "otto")
        otto = await read(harness, Me, "otto", "/api/auth/me")
        assert listed[asked].approved_by_id == listed[direct].owner_id == otto.id
        assert (listed[refused].approval_status, listed[refused].approved_by_id) == ("rejected", None)
        assert "not now" in (listed[refused].rejection_reason or "")

    play(tmp_path, scenario)


def test_a_submission_and_a_vps_are_answered_with_what_is_read(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        body = {"command": "true", "targets": ["n1"]}
        submitted = (await harness.call("otto", "POST", "/api/submit", json=body)).json()
        assert {"message", "task_ids", "assigned_node", "runner_response"} == set(submitted)
        made = (await harness.call("otto", "POST", "/api/vps/create", json={"ssh_public_key": PUBLIC})).json()
        assert {"runner_response", "ssh_key_mode", "vps_backend", "ssh_port"} <= set(made)
        assert (made["ssh_key_mode"], made["vps_backend"]) == ("upload", "docker")

    play(tmp_path, scenario)


def test_vps_and_who_may_use_them(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        harness.open_gateway()
        await harness.room.join("n1")
        made = (await harness.call("otto", "POST", "/api/vps/create", json={"ssh_public_key": PUBLIC})).json()
        task = made["task_id"]
        ulf = (await read(harness, Me, "ulf", "/api/auth/me")).id
        answer = await harness.call("otto", "POST", f"/api/vps/{task}/assign", json=[ulf])
        assert answer.json()["assignments"][0]["username"] == "ulf"
        assert (await harness.call("otto", "POST", f"/api/vps/{task}/assign", json=[999])).status_code == 404
        for path in ("/api/vps", "/api/vps/status", "/api/vps/my"):
            (vps,) = await read(harness, list[Vps], "otto", path)
            assert (vps.ssh_host, vps.ssh_port, vps.ssh_user) == ("127.0.0.1", 8002, "root")
            assert vps.assignees == [Assignee(user_id=ulf, username="ulf")]
        assert [one.task_id for one in await read(harness, list[Vps], "ulf", "/api/vps/my")] == [task]
        assert await read(harness, list[Vps], "ursula", "/api/vps/my") == []
        (seen,) = await read(harness, list[Vps], "vera", "/api/vps")
        assert seen.assignees == []
        assigned = await read(harness, dict[str, Any], "otto", f"/api/vps/{task}/assignments")
        assert (assigned["task_id"], assigned["assignments"][0]["user_id"]) == (task, ulf)
        gone = f"/api/vps/{task}/assign/{ulf}"
        assert (await harness.call("otto", "DELETE", gone)).status_code == 200
        assert (await harness.call("otto", "DELETE", gone)).status_code == 404

    play(tmp_path, scenario)


def test_a_vps_without_ssh_has_no_port(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        harness.open_gateway()
        await harness.room.join("n1")
        made = (await harness.call("otto", "POST", "/api/vps/create", json={})).json()
        shown = (await harness.call("otto", "GET", f"/api/status/{made['task_id']}")).json()
        assert [shown[name] for name in ("ssh_port", "ssh_host", "ssh_user")] == [None, None, None]

    play(tmp_path, scenario)


def test_snapshots_with_a_message_from_the_query(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = (await harness.call("otto", "POST", "/api/vps/create", json={})).json()["task_id"]
        await harness.room.accept_orders()
        await harness.room.report(int(task), TaskState.RUNNING, 1, address="172.30.0.9")
        path, kept = (
            f"/api/vps/snapshots/{task}",
            SnapshotState(at=1_700_000_000, message="hello", size_bytes=7),
        )
        harness.runners.answers = {("GET", path): encode([kept]), ("POST", path): encode(kept)}
        answer = await harness.call("otto", "POST", path, params={"message": "hello"})
        assert answer.status_code == 200
        assert b'"hello"' in harness.runners.calls[-1][3]
        listed = await read(harness, Snapshots, "vera", path)
        assert (listed.task_id, listed.count) == (task, 1)
        assert await read(harness, Snapshot, "vera", f"{path}/latest") == listed.snapshots[0]
        assert listed.snapshots[0].tag.endswith(f"{task}:1700000000")

    play(tmp_path, scenario)


def test_environments_by_name_and_by_container(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        tarballs = await read(harness, dict[str, Tarballs], "otto", "/api/docker/list")
        assert list(tarballs) == ["base"]
        (container,) = await read(harness, list[Container], "otto", "/api/docker/host/containers")
        assert (container.name, container.env_name) == ("kohakuriver-env-base", "base")
        for action in ("start", "stop", "delete"):
            answer = await harness.call("otto", "POST", f"/api/docker/host/{action}/{container.name}")
            assert answer.status_code == 200
        careful = await harness.call(
            "otto", "POST", "/api/docker/host/delete/base", params={"force": "false"}
        )
        assert careful.status_code == 200
        assert harness.environments.calls == [
            ("start", "base"),
            ("stop", "base"),
            ("delete", "base", "by force"),
            ("delete", "base"),
        ]
        harness.environments.files.root = tmp_path
        for name in ("base", container.name):
            answer = await harness.call("otto", "GET", f"/api/fs/container/{name}/list", params={"path": "/"})
            assert answer.status_code == 200
        moved = (await harness.call("otto", "POST", "/api/docker/host/migrate/old")).json()
        assert (moved["old_name"], moved["new_name"], moved["env_name"]) == (
            "old",
            "kohakuriver-env-old",
            "old",
        )

    play(tmp_path, scenario)


def test_parts_that_are_not_there_say_so(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        assert await read(harness, dict[str, Any], "vera", "/api/overlay/status") == {"enabled": False}
        assert await read(harness, list[Any], "vera", "/api/vm/images/n1") == []
        assert await read(harness, dict[str, Any], "vera", "/api/vps/vm-instances") == {}
        for method, path in (
            ("POST", "/api/overlay/release/n1"),
            ("POST", "/api/overlay/cleanup"),
            ("GET", "/api/overlay/ip/available?limit=5"),
            ("GET", "/api/overlay/ip/info/n1"),
            ("POST", "/api/overlay/ip/reserve?runner=n1&ip=10.0.0.5&ttl=60"),
            ("POST", "/api/overlay/ip/release?token=x"),
            ("GET", "/api/overlay/ip/reservations"),
            ("POST", "/api/overlay/ip/validate?token=x"),
            ("GET", "/api/overlay/ip/stats"),
        ):
            answer = await harness.call("ada", method, path)
            assert (answer.status_code, "off" in answer.json()["detail"]) == (400, True), path

    play(tmp_path, scenario)
