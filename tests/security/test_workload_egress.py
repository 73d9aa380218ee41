"""What a workload cannot reach: the daemons, other machines and bridges, and the metadata of a cloud."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kohakuriver.runner.network.egress_rules import EgressSettings
from support.engines.labs import DockerLab, abandon, docker_lab
from support.engines.networked_tasks import BUSYBOX, begin_sleep, end, listening, outcome

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=0) as real:
        yield real


async def connects(lab: DockerLab, address: str, port: int) -> bool:
    """Whether a task gets a connection. What is closed must say so: a task that waits fails the test."""
    code, said = await outcome(lab, BUSYBOX, "timeout", "20", "nc", address, str(port), "-e", "/bin/true")
    assert code in (0, 1), (code, said)
    return code == 0


async def restart_with(lab: DockerLab, egress: EgressSettings) -> None:
    """A runner with these settings in the place of the one before."""
    await abandon(lab.engine)
    lab.engine = lab.new_engine(egress=egress)
    await lab.engine.open()


def other_address() -> str:
    """One of the node's addresses that is not the gateway's of this network."""
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", "docker0"], capture_output=True, check=True)
    return shown.stdout.decode().split()[3].partition("/")[0]


async def test_control_ports_of_the_node_and_its_host_are_closed(lab: DockerLab) -> None:
    gateway = lab.settings.network_gateway
    with listening("0.0.0.0") as runner, listening("0.0.0.0") as host, listening("0.0.0.0") as free:
        await restart_with(lab, EgressSettings(("control",), runner, "127.0.0.1", host))
        assert lab.engine.notices() == []
        for address in (gateway, other_address()):
            assert not await connects(lab, address, runner)
            assert not await connects(lab, address, host)
            assert await connects(lab, address, free)
        await restart_with(lab, EgressSettings((), runner, "127.0.0.1", host))
        assert await connects(lab, gateway, runner)
        assert await connects(lab, other_address(), host)


@contextlib.contextmanager
def neighbour(lab: DockerLab) -> Iterator[tuple[str, int]]:
    """Another machine, which the node leads to: yields its address, and a port that it listens on."""
    name, address = (
        lab.node[-8:],
        f"198.18.{lab.settings.network_subnet.split('.')[2]}.250",
    )
    program = "import socket,time; s=socket.create_server(('', 7000)); print(flush=True); time.sleep(600)"
    commands = (
        f"ip netns add {name}",
        f"ip link add v{name} type veth peer name eth0 netns {name}",
        f"ip addr add {address.rsplit('.', 1)[0]}.249/30 dev v{name}",
        f"ip link set v{name} up",
        f"ip -n {name} addr add {address}/30 dev eth0",
        f"ip -n {name} link set eth0 up",
    )
    server = None
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", program], stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        assert server.stdout.readline() == b"\n"
        yield address, 7000
    finally:
        if server is not None:
            server.kill()
            server.communicate()
        subprocess.run(["ip", "netns", "del", name], check=False)


async def test_a_host_on_another_machine_and_places_of_the_setting_are_closed(lab: DockerLab) -> None:
    with neighbour(lab) as (address, port):
        assert await connects(lab, address, port)
        for egress in (
            EgressSettings(("control",), 1, address, port),
            EgressSettings((f"{address}:{port}",)),
            EgressSettings((f"{address}/31",)),
        ):
            await restart_with(lab, egress)
            assert not await connects(lab, address, port)
        await restart_with(lab, EgressSettings((f"{address}:{port + 1}", "metadata", "control")))
        assert await connects(lab, address, port)


async def test_a_host_whose_name_is_not_found_opens_nothing(lab: DockerLab) -> None:
    with listening("0.0.0.0") as runner:
        await restart_with(lab, EgressSettings(("control",), runner, "no-such-host.invalid", 8000))
        assert [text for text in lab.engine.notices() if "address is not known" in text]
        assert not await connects(lab, lab.settings.network_gateway, runner)


@contextlib.contextmanager
def address_of_the_node(address: str) -> Iterator[None]:
    add = subprocess.run(
        ["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True, check=False
    )
    try:
        yield
    finally:
        if add.returncode == 0:
            subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


async def test_the_clouds_metadata_is_closed_and_its_name_server_is_not(lab: DockerLab) -> None:
    metadata = "169.254.169.254"
    with address_of_the_node(metadata), listening(metadata, 80) as port, listening(metadata, 53) as names:
        assert await connects(lab, metadata, port)
        await restart_with(lab, EgressSettings(("metadata",)))
        assert not await connects(lab, metadata, port)
        assert await connects(lab, metadata, names)


@contextlib.contextmanager
def machine_on_another_bridge(name: str, subnet: str) -> Iterator[tuple[str, int]]:
    """A container of somebody else's, so to speak: yields its namespace and the number of its port."""
    commands = (
        f"ip link add b{name} type bridge",
        f"ip addr add {subnet}.1/24 dev b{name}",
        f"ip link set b{name} up",
        f"ip netns add {name}",
        f"ip link add v{name} type veth peer name eth0 netns {name}",
        f"ip link set v{name} master b{name} up",
        f"ip -n {name} addr add {subnet}.2/24 dev eth0",
        f"ip -n {name} link set eth0 up",
    )
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield name, socket.if_nametoindex(f"v{name}")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", f"b{name}"], check=False)


async def test_a_workload_that_passes_off_another_bridges_port_as_its_own_closes_it_to_nobody(
    lab: DockerLab,
) -> None:
    """With NET_ADMIN it gives its interface the number of any on the node; a later runner reads that."""
    attacker, sandbox = await begin_sleep(lab, "NET_ADMIN")
    assert sandbox.mark is not None
    subnet = f"198.19.{lab.settings.network_subnet.split('.')[2]}"
    with machine_on_another_bridge(lab.node[-8:], subnet) as (name, number), listening(f"{subnet}.1") as port:
        call = f"import socket; socket.create_connection(('{subnet}.1', {port}), 5)"
        calls = ["ip", "netns", "exec", name, sys.executable, "-c", call]
        subprocess.run(calls, check=True, timeout=20)
        enter = ["nsenter", f"--net=/proc/{sandbox.mark.pid}/ns/net"]
        for words in ("set eth0 down", "set eth0 name eth7", f"add eth0 index {number} type bridge"):
            subprocess.run([*enter, "ip", "link", *words.split()], check=True)
        await lab.restart()
        subprocess.run(["ip", "-n", name, "neigh", "flush", "all"], check=True)
        subprocess.run(calls, check=True, timeout=20)
    await end(lab, attacker)


@contextlib.contextmanager
def published(lab: DockerLab, address: str, port: int) -> Iterator[int]:
    """A port of every address of the node that leads elsewhere, as engines publish ports of containers."""
    table = f"ip published-{lab.node[-8:]}"
    with socket.create_server(("", 0)) as free:
        outside = free.getsockname()[1]
    chain = "type nat hook prerouting priority -110;"
    rule = f"fib daddr type local tcp dport {outside} dnat to {address}:{port}"
    subprocess.run(["nft", f"table {table} {{ chain arriving {{ {chain} {rule}; }}; }}"], check=True)
    try:
        yield outside
    finally:
        subprocess.run(["nft", f"delete table {table}"], check=True)


async def test_a_control_port_that_leads_into_a_container_is_closed_too(lab: DockerLab) -> None:
    """A host in a container beside the runner, for one: workloads came in by any other of the addresses."""
    addresses = (lab.settings.network_gateway, other_address())
    with neighbour(lab) as (address, port), published(lab, address, port) as outside:
        for of_node in addresses:
            assert await connects(lab, of_node, outside)
        await restart_with(lab, EgressSettings(("control",), 1, "127.0.0.1", outside))
        for of_node in addresses:
            assert not await connects(lab, of_node, outside)
        assert await connects(lab, address, port)
