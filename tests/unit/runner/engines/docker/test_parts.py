"""The pure parts of the Docker engine: request body, journal, namespace tables, network plan."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import Conflict, EngineFault, InvalidInput, KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.network.ipv4_routes import Route, parse_routes
from kohakuriver.models.resources import Gpu
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.runner.engines.contract.faults import NodeFault
from kohakuriver.runner.engines.contract.spec import ContainerBody, ImageChoice, UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker.inside.network_files import resolv_text
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.output.engine_journal import Pieces, decode
from kohakuriver.runner.engines.docker.sandboxes.body import sandbox_hostname
from kohakuriver.runner.engines.docker.workloads.body import EngineTraits, Placement, container_body
from kohakuriver.runner.engines.docker.workloads.start_errors import create_fault, start_fault
from kohakuriver.runner.network.docker_network import (
    FoundNetwork,
    Step,
    WantedNetwork,
    plan,
)
from kohakuriver.runner.static_program import is_static_elf

BUFFER = 16384
WANTED = WantedNetwork("net", "172.30.0.0/16", "172.30.0.1")


def spec(**changes: Any) -> WorkloadSpec:
    fields: dict[str, Any] = {
        "task_id": TaskId(5),
        "attempt": 2,
        "argv": ("a", "b c"),
        "env": (("K", "v"),),
        "cores": 0,
        "memory_bytes": 0,
        "binding": None,
        "gpus": (),
        "working_dir": "/",
        "user": UserIds(1, 2),
        "mounts": (),
        "stdout_path": Path("/o"),
        "stderr_path": Path("/e"),
    }
    own = {name: changes.pop(name) for name in ContainerBody.__struct_fields__ if name in changes}
    return WorkloadSpec(**fields | changes, body=ContainerBody(ImageChoice(environment="e"), **own))


def body(traits: EngineTraits | None = None, **changes: Any) -> dict[str, Any]:
    return container_body(spec(**changes), Placement(Owner("n"), "img", "sb"), traits or EngineTraits())


def gpu(uuid: str, vendor: str = "nvidia") -> Gpu:
    return Gpu(0, uuid, "x", 1, vendor)


@pytest.mark.parametrize("privileged", [False, True])
def test_limits_hold_for_each_workload(privileged: bool) -> None:
    config = body(pids_limit=9, memory_bytes=1 << 30, privileged=privileged)["HostConfig"]
    assert (config["PidsLimit"], config["Memory"], config["MemorySwap"]) == (9, 1 << 30, 1 << 30)
    assert config["OomScoreAdj"] == 500
    assert body()["HostConfig"]["PidsLimit"] is None


@pytest.mark.parametrize(
    ("capabilities", "keeps"),
    [((), False), (("NET_RAW", "MKNOD"), False), (("NET_ADMIN",), True), (("NET_RAW", "SYS_ADMIN"), True)],
)
def test_rights_over_a_network_keep_its_sandbox_from_others(
    capabilities: tuple[str, ...], keeps: bool
) -> None:
    made = body(capabilities=capabilities)
    assert made["Labels"]["kohakuriver.network_rights"] == str(keeps).lower()
    assert set(capabilities) < set(made["HostConfig"]["CapAdd"])
    assert not set(capabilities) & set(made["HostConfig"]["CapDrop"])


def test_what_a_task_asks_of_its_container_is_in_its_body() -> None:
    asked = ContainerOptions(
        shm_size_bytes=5, ulimits=("core=0:-1",), ipc="none", devices=("/dev/a:/dev/b:r",), user="web:33"
    )
    made = body(options=asked, user=UserIds(0, 0, (0,)))
    config = made["HostConfig"]
    assert (config["ShmSize"], config["IpcMode"], made["User"]) == (5, "none", "web:33")
    assert config["Ulimits"] == [{"Name": "core", "Soft": 0, "Hard": -1}]
    device = {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}
    assert (config["Devices"], config["GroupAdd"]) == ([device], [])
    plain = body()["HostConfig"]
    assert (plain["Ulimits"], plain["Devices"], plain.get("IpcMode")) == ([], [], None)


def test_an_engine_that_maps_users_keeps_its_own_limit_of_locked_memory_where_gpus_are_given() -> None:
    asked = ContainerOptions(ulimits=("memlock=-1:-1", "core=0:0"))
    gpus = (gpu("GPU-1"),)
    config = body(EngineTraits(maps_users=True), options=asked, gpus=gpus)["HostConfig"]
    assert [limit["Name"] for limit in config["Ulimits"]] == ["core"]
    for traits, cards in ((EngineTraits(), gpus), (EngineTraits(maps_users=True), ())):
        config = body(traits, options=asked, gpus=cards)["HostConfig"]
        assert [limit["Name"] for limit in config["Ulimits"]] == ["memlock", "core"]


@pytest.mark.parametrize(
    ("error", "is_nodes"),
    [
        (NotFound("No such image: sha256:0"), True),
        (EngineFault("mkdir /var/lib/docker/overlay2/0-init: read-only file system"), True),
        (EngineFault("open /var/lib/docker/image/overlay2/0: input/output error"), True),
        (Conflict("The container name is already in use"), True),
        (EngineFault("invalid reference format"), False),
        (EngineFault("bind source path does not exist: /data/read-only file system"), False),
    ],
)
def test_a_container_that_an_engine_in_trouble_refuses_is_the_nodes_doing(
    error: KohakuRiverError, is_nodes: bool
) -> None:
    fault = create_fault(error, spec(), "sha256:0")
    assert isinstance(fault, NodeFault) is is_nodes


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "error setting rlimits for ready process: error setting rlimit type 8: operation not permitted",
            "--ulimit",
        ),
        ('error mounting "mqueue" to rootfs at "/dev/mqueue": operation not permitted', "userns-remap"),
        ("error creating device nodes: mount /dev/x: no such file or directory", "device"),
    ],
)
def test_what_an_engine_cannot_give_a_task_is_no_fault_of_its_node(said: str, told: str) -> None:
    error = EngineFault(f"OCI runtime create failed: error during container init: {said}: unknown")
    fault = start_fault(error, "/bin/true", "/")
    assert told in str(fault)
    assert not isinstance(fault, NodeFault)


@pytest.mark.parametrize("asked", [{"hostname": "box"}, {"ipc": "host"}, {"devices": ("/dev/a:/dev/a:r",)}])
def test_nobody_else_gets_the_sandbox_of_who_reaches_the_node(asked: dict[str, Any]) -> None:
    made = body(options=ContainerOptions(**asked))
    assert made["Labels"]["kohakuriver.network_rights"] == "true"


def test_gpus_go_by_device_request_or_by_cdi_name() -> None:
    assert body(gpus=(gpu("GPU-1"),))["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}
    ]
    cdi = body(EngineTraits(knows_cdi_nvidia=True), gpus=(gpu("GPU-1"), gpu("GPU-2")))
    assert cdi["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"]}
    ]


def test_amd_gpus_go_by_their_devices() -> None:
    config = body(gpus=(gpu("x", "amd"),))["HostConfig"]
    assert [device["PathOnHost"] for device in config["Devices"]] == ["/dev/kfd", "/dev/dri"]
    assert config["DeviceRequests"] == []


def test_without_gpus_no_card_is_visible_to_an_image_that_asks_for_all() -> None:
    env = (("NVIDIA_VISIBLE_DEVICES", "all"),)
    assert body(EngineTraits(has_nvidia_runtime=True), env=env)["Env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert body(env=env, gpus=(gpu("GPU-1"),))["Env"] == []


def entry(source: str, line: bytes, last: bool | None = None) -> bytes:
    """One journal entry; `last` None: a whole line, else a piece of one."""
    message = b"\x0a\x06" + source.encode() + b"\x10" + varint(1_795_000_000_000_000_000)
    if line:
        message += b"\x1a" + varint(len(line)) + line
    if last is not None:
        part = (b"\x08\x01" if last else b"") + b"\x12\x02id" + b"\x18\x01"
        message += b"\x20\x01" + b"\x2a" + varint(len(part)) + part
    size = len(message).to_bytes(4, "big")
    return size + message + size


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def as_engine_writes(source: str, data: bytes) -> bytes:
    """Entries for a stream, cut as the engine's copier cuts it."""
    out = b""
    *lines, rest = data.split(b"\n")
    for number, line in enumerate([*lines, rest]):
        whole = number < len(lines)
        pieces = [line[at : at + BUFFER] for at in range(0, len(line), BUFFER)] or [b""]
        if whole and len(pieces[-1]) == BUFFER:
            pieces.append(b"")
        if whole and len(pieces) == 1:
            out += entry(source, pieces[0])
        elif whole:
            out += b"".join(entry(source, piece, at == len(pieces) - 1) for at, piece in enumerate(pieces))
        elif line:
            out += b"".join(entry(source, piece, False) for piece in pieces)
    return out


streams = st.lists(
    st.one_of(st.binary(max_size=200), st.integers(BUFFER - 2, BUFFER + 2).map(bytes), st.just(b"\n"))
).map(b"".join)


@given(streams, streams, st.data())
def test_the_journal_gives_back_each_stream_whatever_the_cut(
    out: bytes, err: bytes, data: st.DataObject
) -> None:
    journal = as_engine_writes("stdout", out) + as_engine_writes("stderr", err)
    cut = data.draw(st.integers(0, len(journal)))
    pieces = Pieces()
    used = decode(journal[:cut], pieces)
    assert used + decode(journal[used:], pieces) == len(journal)
    assert (b"".join(pieces.stdout), b"".join(pieces.stderr)) == (out, err)


def test_a_damaged_journal_is_said_to_be_one() -> None:
    whole = entry("stdout", b"line")
    with pytest.raises(EngineFault, match="damaged"):
        decode(whole[:-1] + b"\xff" + whole, Pieces())


def found(**changes: Any) -> FoundNetwork:
    fields: dict[str, Any] = {
        "id": "1", "subnet": WANTED.subnet, "gateway": WANTED.gateway, "is_ours": True, "is_empty": True,
        "bridge": "br-1",
    }  # fmt: skip
    return FoundNetwork(**fields | changes)


def route(network: str, interface: str = "eth0") -> Route:
    return Route(interface, ipaddress.IPv4Network(network))


def test_the_network_is_made_kept_or_remade() -> None:
    assert plan(WANTED, None, [route("0.0.0.0/0")]) is Step.CREATE
    assert plan(WANTED, found(is_ours=False), [route("172.30.0.0/16", "br-1")]) is Step.KEEP
    assert plan(WANTED, found(subnet="10.0.0.0/24"), []) is Step.REMAKE
    assert plan(WANTED, found(gateway="172.30.0.2"), []) is Step.REMAKE
    assert plan(WANTED, found(is_ours=False, is_of_another_cluster=True), []) is Step.REMAKE


@pytest.mark.parametrize(
    ("network", "routes", "words"),
    [
        (None, [route("172.30.4.0/24")], "172.30.4.0/24"),
        (None, [route("172.16.0.0/12", "tun0")], "tun0"),
        (found(subnet="10.0.0.0/24", is_empty=False), [], "containers still use it"),
        (found(subnet="10.0.0.0/24", is_ours=False), [], "docker network rm net"),
        (found(is_ours=False, is_empty=False, is_of_another_cluster=True), [], "another cluster"),
    ],
)
def test_a_network_that_cannot_be_says_what_to_change(
    network: FoundNetwork | None, routes: list[Route], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        plan(WANTED, network, routes)


def test_routes_are_read_as_the_kernel_writes_them() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        "down0\t0000000A\t00000000\t0000\t0\t0\t0\t000000FF\t0\t0\t0\n"
    )
    assert parse_routes(table) == [route("0.0.0.0/0"), route("172.17.0.0/16", "docker0")]


def test_the_resolver_file_keeps_the_nodes_search_domains() -> None:
    text = resolv_text("# x\nsearch lab.example home\nnameserver 9.9.9.9\n")
    assert text == "search lab.example home\nnameserver 127.0.0.11\noptions ndots:0\n"


def test_host_names_are_dns_labels() -> None:
    assert sandbox_hostname("Node_1.lab.example", 7) == "node-1-lab-example-7"
    assert len(sandbox_hostname("x" * 200, 12345)) <= 63


def test_static_programs_are_told_from_others() -> None:
    assert is_static_elf(Path("/bin/busybox").read_bytes())
    assert not is_static_elf(Path("/bin/ls").read_bytes())
    assert not is_static_elf(b"#!/bin/sh\n" + b" " * 100)
