"""Attacks on the bridge that a node's workloads share, and on the ways into them.

Frames that no tool makes are sent from the attacker's own network namespace, which is what a workload with
NET_RAW can do in it.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Unavailable
from kohakuriver.network import netlink_facts
from kohakuriver.runner.engines.contract.spec import ImageChoice, UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker.kernel.netns_dial import dial_loopback
from kohakuriver.runner.engines.docker.kernel.netns_state import port_name
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.network import bridge_filter
from support.clients.vps_sshd import make_key
from support.engines.labs import DockerLab, docker_lab, until
from support.engines.networked_tasks import BUSYBOX, begin, begin_sleep, end, listening, outcome

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]


ROOT, USER = UserIds(0, 0), UserIds(12345, 23456)
FRAMES = Path(__file__).parents[1] / "support" / "engines" / "raw_frames.py"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=0) as real:
        yield real


async def in_task(lab: DockerLab, spec: WorkloadSpec, *argv: str) -> tuple[int, str]:
    """Run a command in a task that runs, with its rights."""
    name = f"kohakuriver-task-{spec.task_id}"
    done = await asyncio.to_thread(
        subprocess.run, ["docker", "exec", name, *argv], capture_output=True, check=False, timeout=60
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def inside(sandbox: Sandbox, *words: str) -> list[str]:
    """Argument vector that runs our program for raw frames in a sandbox's network."""
    assert sandbox.mark is not None
    return ["nsenter", f"--net=/proc/{sandbox.mark.pid}/ns/net", sys.executable, str(FRAMES), *words]


async def mac_of(sandbox: Sandbox) -> str:
    done = await asyncio.to_thread(
        subprocess.run, inside(sandbox, "mac"), capture_output=True, check=True, timeout=20
    )
    return done.stdout.decode().strip()


# Rights


async def test_a_task_cannot_open_raw_sockets_nor_make_devices_unless_that_was_granted(
    lab: DockerLab,
) -> None:
    gateway = lab.settings.network_gateway
    arping = (BUSYBOX, "arping", "-c", "1", "-I", "eth0", gateway)
    device = (BUSYBOX, "mknod", "/device", "b", "8", "0")
    for argv in (arping, device):
        code, said = await outcome(lab, *argv)
        assert code != 0
        assert "not permitted" in said
    assert (await outcome(lab, *arping, capabilities=("NET_RAW",)))[0] == 0
    assert (await outcome(lab, *device, capabilities=("MKNOD",)))[0] == 0


async def test_a_vps_cannot_either(lab: DockerLab) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    status, said = await lab.run(spec, "arping", "-c", "1", "-I", "eth0", lab.settings.network_gateway)
    assert status != 0
    assert "not permitted" in said
    assert (await lab.run(spec, "mknod", "/device", "b", "8", "0"))[0] != 0
    await lab.engine.remove(spec.task_id, 1)


_PING = """
import socket, sys
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
echo.settimeout(20)
echo.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]) + b"hello", (sys.argv[1], 0))
print(echo.recv(100)[8:].decode())
"""


@pytest.mark.parametrize("user", [ROOT, USER])
async def test_echo_requests_go_out_without_raw_sockets(lab: DockerLab, user: UserIds) -> None:
    """As today's `ping` sends them; see docs/vps.md for one that cannot."""
    image = ImageChoice(registry_image="debian-ssh")
    argv = ("/usr/bin/python3", "-c", _PING, lab.settings.network_gateway)
    assert await outcome(lab, *argv, user=user, image=image) == (0, "hello\n")


# Who speaks for whom


async def test_nobody_takes_the_gateways_address(lab: DockerLab) -> None:
    """Tried with all rights over its own network: what the victim believes stays as it was."""
    gateway = lab.settings.network_gateway
    victim, _ = await begin_sleep(lab)
    attacker, sandbox = await begin_sleep(lab, "NET_ADMIN", "NET_RAW")
    with listening(gateway) as port:
        assert (await in_task(lab, victim, "nc", gateway, str(port), "-e", "/bin/true"))[0] == 0
    claim = f"ip addr add {gateway}/32 dev eth0 && busybox arping -U -c 4 -I eth0 -s {gateway} {gateway}"
    code, said = await in_task(lab, attacker, "sh", "-c", claim)
    assert "Sent 4 probe" in said, (code, said)
    _, table = await in_task(lab, victim, "cat", "/proc/net/arp")
    assert gateway in table
    assert await mac_of(sandbox) not in table
    with listening(gateway) as port:
        assert (await in_task(lab, victim, "nc", gateway, str(port), "-e", "/bin/true"))[0] == 0
    await end(lab, victim, attacker)


async def test_nobody_sends_as_another_workload(lab: DockerLab) -> None:
    """The node hears who it is: a query with the victim's address does not arrive, one with its own does."""
    victim, seen = await begin_sleep(lab)
    attacker, own = await begin_sleep(lab, "NET_ADMIN", "NET_RAW")
    gateway = lab.settings.network_gateway
    query = f"nslookup asked-as-$1 {gateway}:$0 >/dev/null 2>&1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind((gateway, 0))
        node.settimeout(30)
        port = str(node.getsockname()[1])
        script = (
            f"ip addr add {seen.address}/32 dev eth0; ip route add {gateway}/32 dev eth0 src {seen.address}; "
            f"timeout 2 busybox {query.replace('$1', 'victim')}; "
            f"ip route del {gateway}/32 dev eth0; timeout 2 busybox {query.replace('$1', 'own')}; true"
        )
        code, said = await in_task(lab, attacker, "sh", "-c", script, port)
        assert code == 0, said
        heard, (address, _) = await asyncio.to_thread(node.recvfrom, 500)
    assert (address, b"asked-as-own" in heard) == (own.address, True)
    await end(lab, victim, attacker)


FORGED = (
    "arp-gateway",  # says that the gateway is here
    "arp-victim",
    "arp-inner",  # own address outside, the gateway's within
    "arp-vlan",  # tagged with VLAN 0, which receivers take off
    "arp-qinq",
    "mac-victim",  # own IP address from the victim's MAC: the bridge would send its frames here
    "mac-own-ip-gateway",
    "link-local-lldp",  # to an address that no bridge forwards: learned from without any hook
    "link-local-port",
    "link-local-spanning-tree",
    "ip-vlan",
    "ip6-neighbour",
    "ip6-router",
)


@pytest.mark.parametrize("kind", FORGED)
async def test_forged_frames_reach_nobody_and_teach_the_bridge_nothing(lab: DockerLab, kind: str) -> None:
    victim, seen = await begin_sleep(lab)
    attacker, own = await begin_sleep(lab, "NET_RAW")
    victims_mac, own_mac = await mac_of(seen), await mac_of(own)
    listening = await asyncio.create_subprocess_exec(
        *inside(seen, "listen", own_mac, own.address), stdout=asyncio.subprocess.PIPE
    )
    assert listening.stdout is not None
    try:
        assert await listening.stdout.readline() == b"ready\n"
        before = await port_of(lab, victims_mac, seen)
        send = inside(own, "send", kind, own.address, lab.settings.network_gateway, seen.address, victims_mac)
        await asyncio.to_thread(subprocess.run, send, check=True, timeout=20)
        async with asyncio.timeout(30):
            heard = (await listening.stdout.read()).decode().splitlines()
        assert heard == ["genuine"]
        assert await port_of(lab, victims_mac, seen) == before
    finally:
        with contextlib.suppress(ProcessLookupError):
            listening.kill()
        await listening.wait()
    await end(lab, victim, attacker)


async def port_of(lab: DockerLab, mac: str, sandbox: Sandbox) -> str:
    """The port behind which the bridge believes a MAC, which has just been heard."""
    hello = inside(sandbox, "hello", sandbox.address, lab.settings.network_gateway)
    shown = await asyncio.to_thread(
        subprocess.run, ["bridge", "fdb", "show"], capture_output=True, check=True, timeout=20
    )
    lines = [line.split() for line in shown.stdout.decode().splitlines()]
    ports = {line[2] for line in lines if line[0] == mac and "permanent" not in line}
    if not ports:
        await asyncio.to_thread(subprocess.run, hello, check=True, timeout=20)
        return await port_of(lab, mac, sandbox)
    (port,) = ports
    return port


async def test_what_somebody_flushed_is_put_back(lab: DockerLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_filter, "INTERVAL_SECONDS", 0.1)
    await lab.restart()
    spec, sandbox = await begin_sleep(lab, "NET_RAW")
    table = lab.engine.bridge_filter.table

    def listed() -> tuple[list[dict[str, Any]], dict[str, frozenset[str]]] | None:
        argv = ["nft", "-j", "list", "table", "bridge", table]
        shown = subprocess.run(argv, capture_output=True, check=False)
        return (
            bridge_filter.read_table(json.loads(shown.stdout)["nftables"]) if shown.returncode == 0 else None
        )

    whole = listed()
    assert whole is not None
    assert sandbox.address in whole[1]["addresses"]
    for harm in (
        f"delete table bridge {table}",
        f"flush chain bridge {table} arriving",
        f"flush set bridge {table} pinned",
        f"insert rule bridge {table} arriving accept",
    ):
        subprocess.run(["nft", harm], check=True)
        assert listed() != whole

        async def is_back() -> bool:
            return bool(listed() == whole)

        await until(is_back)
    await end(lab, spec)


async def test_a_bridge_filter_that_nobody_touched_are_looked_at_without_a_process(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runner of each machine looks every few seconds, for as long as it runs."""
    spec, sandbox = await begin_sleep(lab)
    begun: list[str] = []
    start = asyncio.create_subprocess_exec

    async def counted(program: str, *arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        begun.append(program)
        return await start(program, *arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)

    async def costs_nothing() -> bool:  # unless neighbours on this machine change rules of theirs
        begun.clear()
        await lab.engine.bridge_filter.check()
        return not begun

    await until(costs_nothing)
    assert sandbox.mark is not None
    assert port_name(sandbox.mark.pid) in netlink_facts.ports_of(lab.engine.bridge_filter.bridge)
    await end(lab, spec)


async def test_a_bridge_that_somebody_lets_learn_from_link_local_frames_unlearns_it(lab: DockerLab) -> None:
    bridge = lab.engine.bridge_filter.bridge
    assert not netlink_facts.learns_from_link_local(bridge)
    learn = ["ip", "link", "set", "dev", bridge, "type", "bridge", "no_linklocal_learn", "0"]
    subprocess.run(learn, check=True)
    assert netlink_facts.learns_from_link_local(bridge)
    await lab.engine.bridge_filter.check()
    assert not netlink_facts.learns_from_link_local(bridge)


async def test_a_later_runner_pins_what_runs_even_if_it_hides_its_interface(lab: DockerLab) -> None:
    spec, sandbox = await begin_sleep(lab, "NET_ADMIN", "NET_RAW")
    hide = "ip link set eth0 down; ip link set eth0 name eth7; ip link set eth7 up"
    assert (await in_task(lab, spec, "sh", "-c", hide))[0] == 0
    await lab.restart()
    shown = subprocess.run(
        ["nft", "list", "set", "bridge", lab.engine.bridge_filter.table, "pinned"],
        capture_output=True,
        check=True,
    )
    assert f" . {sandbox.address} }}" in shown.stdout.decode()
    await end(lab, spec)


async def test_a_node_without_nft_says_so_and_works(lab: DockerLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    await lab.restart()
    assert [text for text in lab.engine.notices() if "nft is missing" in text and "bridge" in text]
    assert lab.engine.faults() == []
    code, _ = await outcome(lab, "/bin/true")
    assert code == 0


# VPSs without a password


async def test_nobody_on_the_network_reaches_a_vps_without_password(lab: DockerLab, tmp_path: Path) -> None:
    key = make_key(tmp_path / "host_key").read_text()
    spec = lab.vps(image="debian-ssh", ssh_key_mode=SshKeyMode.NONE, host_key=key)
    assert spec.session is not None
    sandbox = await begin(lab, spec)
    await lab.engine.vps.set_up(spec.task_id, 1, spec.session)
    # A process of the node, whose address is the gateway's, and a neighbour.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((sandbox.address, 22), 10)
    code, _ = await outcome(lab, BUSYBOX, "nc", "-w", "5", sandbox.address, "22")
    assert code != 0
    reader, writer = await lab.engine.ports.dial(spec.task_id, 22)
    assert (await reader.readline()).startswith(b"SSH-2.0-")
    writer.close()
    await lab.engine.remove(spec.task_id, 1)
    with pytest.raises(Exception, match=str(spec.task_id)):
        await lab.engine.ports.dial(spec.task_id, 22)


async def test_the_way_into_a_vps_leads_into_no_other_namespace(lab: DockerLab) -> None:
    """Its sandbox ended and another process has its number: nobody is led to that one's loopback."""
    spec, sandbox = await begin_sleep(lab)
    assert sandbox.mark is not None
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        here = Path("/proc/self/ns/net").stat().st_ino
        for mark in (
            replace(sandbox.mark, start_ticks=sandbox.mark.start_ticks + 1),
            replace(sandbox.mark, pid=1),
            replace(sandbox.mark, pid=1, netns_inode=here),
        ):
            with pytest.raises(Unavailable):
                await dial_loopback(mark, port)
        with pytest.raises(ConnectionRefusedError):
            await dial_loopback(sandbox.mark, port)
    assert Path("/proc/self/ns/net").stat().st_ino == here
    await end(lab, spec)
