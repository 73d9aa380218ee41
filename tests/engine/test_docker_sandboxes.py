"""Sandboxes on the real engine: ready ones, used again when clean, destroyed when not, kept over a crash."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.models.names import SANDBOX_NAME, task_container_name
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from support.engines.labs import DockerLab, docker_lab, ignore, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

SANDBOX = "kohakuriver.sandbox"


@pytest.fixture
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=getattr(request, "param", 1)) as real:
        yield real


async def ready(lab: DockerLab, count: int = 1) -> set[str]:
    """Wait until that many sandboxes are there, all running; return their ids."""

    async def are_there() -> bool:
        rows = await lab.containers(SANDBOX)
        return len(rows) == count and all(row["State"] == "running" for row in rows)

    try:
        await until(are_there)
    except TimeoutError:
        states = {row["Names"][0]: row["Status"] for row in await lab.containers(SANDBOX)}
        pytest.fail(f"{count} running sandboxes wanted, {states} are there; faults: {lab.engine.faults()}")
    return await present(lab)


async def present(lab: DockerLab) -> set[str]:
    """Ids of the sandboxes that are there now; `remove` returns when one is given back or destroyed."""
    return {row["Id"] for row in await lab.containers(SANDBOX)}


async def begin(lab: DockerLab, *argv: str, **changes: Any) -> WorkloadSpec:
    spec = lab.spec(*argv, **changes)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    return spec


async def run(lab: DockerLab, *argv: str, **changes: Any) -> str:
    spec = await begin(lab, *argv, **changes)
    await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    return spec.stdout_path.read_text()


async def sandbox_of(lab: DockerLab, spec: WorkloadSpec) -> str:
    facts = await lab.api.json("GET", f"containers/{task_container_name(spec.task_id)}/json")
    return str(facts["HostConfig"]["NetworkMode"]).removeprefix("container:")


async def test_a_clean_sandbox_serves_the_next_workload(lab: DockerLab) -> None:
    first = await ready(lab)
    addresses = {await run(lab, "/bin/sh", "-c", "ip -4 addr show eth0") for _ in range(3)}
    assert first <= await present(lab)
    assert len(addresses) == 1


def has_way_out() -> bool:
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    return any(route.split()[1] == "00000000" for route in routes)


@pytest.mark.skipif(not has_way_out(), reason="no name server can be reached from here")
async def test_a_workload_that_resolved_a_name_leaves_a_clean_sandbox(lab: DockerLab) -> None:
    first = await ready(lab)
    await run(lab, "/bin/nc", "-w", "1", "name.invalid", "9")
    assert first <= await present(lab)


async def test_a_listener_ends_with_its_workload_and_the_sandbox_is_used_again(lab: DockerLab) -> None:
    first = await ready(lab)
    spec = await begin(lab, "/bin/nc", "-l", "-p", "7777")
    await lab.engine.stop(spec.task_id, 1, 0)
    await lab.engine.remove(spec.task_id, 1)
    assert first <= await present(lab)


async def test_a_connection_that_lingers_costs_the_sandbox(lab: DockerLab) -> None:
    first = await ready(lab)
    # The side that closes first keeps its end in TIME_WAIT.
    await run(lab, "/bin/sh", "-c", "nc -l -p 7777 </dev/null & sleep 0.3; echo x | nc 127.0.0.1 7777; wait")
    assert not first & await present(lab)


async def test_a_workload_with_rights_over_its_network_costs_the_sandbox(lab: DockerLab) -> None:
    first = await ready(lab)
    spec = lab.spec("/bin/true", privileged=True)
    await lab.engine.create(spec, ignore)
    assert await sandbox_of(lab, spec) in first
    await lab.restart()  # what the labels say of it counts after a crash too
    await lab.engine.remove(spec.task_id, 1)
    assert not first & await present(lab)


async def test_a_workload_without_rights_cannot_change_its_network(lab: DockerLab) -> None:
    first = await ready(lab)
    spec = await begin(lab, "/bin/ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
    assert (await lab.engine.wait(spec)).exit_code != 0
    await lab.engine.remove(spec.task_id, 1)
    assert first <= await present(lab)


@asynccontextmanager
async def in_namespace(lab: DockerLab, spec: WorkloadSpec, script: str) -> AsyncIterator[None]:
    """Do something in the workload's network from outside, where a workload without rights cannot."""
    facts = await lab.api.json("GET", f"containers/{await sandbox_of(lab, spec)}/json")
    enter = ["nsenter", f"--net=/proc/{facts['State']['Pid']}/ns/net"]
    inside = subprocess.Popen(
        [*enter, "busybox", "sh", "-c", f"{script}\necho done"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert inside.stdout is not None
    try:
        assert await asyncio.to_thread(inside.stdout.readline) == b"done\n"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(inside.pid, signal.SIGKILL)
        inside.stdout.close()
        inside.wait()


TRACES = {
    "route": "ip route add 198.51.100.0/24 dev eth0",
    "address": "ip addr add 198.51.100.7/32 dev eth0",
    "interface": "ip link add extra type bridge",
    "neighbour": "nc -w 1 {peer} 9",
    "process": "sleep 60 &",
    "socket": "nc -l -p 7777 & sleep 0.3",
}


@pytest.mark.parametrize("trace", TRACES)
async def test_a_trace_in_the_namespace_costs_the_sandbox(lab: DockerLab, trace: str) -> None:
    first = await ready(lab)
    spec = await begin(lab, "/bin/sleep", "60")
    peer = lab.settings.network_gateway.removesuffix(".1") + ".99"
    async with in_namespace(lab, spec, TRACES[trace].format(peer=peer)):
        await lab.engine.remove(spec.task_id, 1)
        assert not first & await present(lab)


@pytest.mark.parametrize("lab", [0], indirect=True)
async def test_pool_size_0_makes_each_on_demand_and_uses_it_once(lab: DockerLab) -> None:
    assert await lab.containers(SANDBOX) == []
    spec = await begin(lab, "/bin/sleep", "60")
    assert len(await lab.containers(SANDBOX)) == 1
    await lab.engine.remove(spec.task_id, 1)
    assert await lab.containers(SANDBOX) == []


@pytest.mark.parametrize("lab", [2], indirect=True)
async def test_the_pool_is_filled_after_a_take(lab: DockerLab) -> None:
    first = await ready(lab, 2)
    spec = await begin(lab, "/bin/sleep", "60")
    assert await sandbox_of(lab, spec) in first
    assert first < await ready(lab, 3)
    await lab.engine.remove(spec.task_id, 1)


async def test_a_burst_uses_sandboxes_again_and_is_trimmed_afterwards(lab: DockerLab) -> None:
    await lab.engine.close()
    lab.engine = lab.new_engine(idle_trim_seconds=0.3)
    await lab.engine.open()
    specs = [lab.spec("/bin/true") for _ in range(12)]
    used: set[str] = set()
    three_at_once = asyncio.Semaphore(3)

    async def one(spec: WorkloadSpec) -> None:
        async with three_at_once:
            await lab.engine.create(spec, ignore)
            used.add(await sandbox_of(lab, spec))
            await lab.engine.start(spec.task_id, 1)
            await lab.engine.wait(spec)
            await lab.engine.remove(spec.task_id, 1)

    await asyncio.gather(*(one(spec) for spec in specs))
    assert len(used) <= 6
    await ready(lab, 1)


async def test_after_a_crash_the_served_sandbox_stays_and_the_idle_one_is_used_again(lab: DockerLab) -> None:
    await ready(lab)
    spec = await begin(lab, "/bin/sh", "-c", "sleep 1; ip -4 addr show eth0")
    serving = await sandbox_of(lab, spec)
    idle = (await ready(lab, 2)) - {serving}
    await lab.restart()
    assert await sandbox_of(lab, spec) == serving
    assert "inet " in await run(lab, "/bin/ip", "-4", "addr", "show", "eth0")
    assert idle | {serving} <= await present(lab)
    await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    assert "inet " in spec.stdout_path.read_text()


async def test_a_sandbox_without_its_record_is_not_trusted_after_a_crash(lab: DockerLab) -> None:
    first = await ready(lab)
    records = lab.settings.state_dir / "sandboxes"

    async def recorded() -> bool:
        return records.exists() and len(list(records.glob("*.json"))) >= len(first)

    await until(recorded)
    for record in records.iterdir():
        record.unlink()
    await lab.restart()

    async def replaced() -> bool:
        return not {row["Id"] for row in await lab.containers(SANDBOX)} & first

    await until(replaced)
    await ready(lab)


async def test_a_sandbox_that_died_is_replaced_before_it_serves(lab: DockerLab) -> None:
    first = await ready(lab)
    await lab.api.json("POST", f"containers/{next(iter(first))}/kill")
    assert await run(lab, "/bin/echo", "fine") == "fine\n"
    assert not first & await present(lab)


async def test_a_sandbox_that_died_between_create_and_start_is_revived(lab: DockerLab) -> None:
    spec = lab.spec("/bin/echo", "fine")
    await lab.engine.create(spec, ignore)
    serving = await sandbox_of(lab, spec)
    await lab.api.json("POST", f"containers/{serving}/kill")
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "fine\n"
    await lab.engine.remove(spec.task_id, 1)
    assert serving not in await present(lab)


async def test_close_removes_what_is_idle_and_leaves_what_serves(lab: DockerLab) -> None:
    await ready(lab)
    spec = await begin(lab, "/bin/sleep", "60")
    serving = await sandbox_of(lab, spec)
    await ready(lab, 2)
    await lab.engine.close()
    assert {row["Id"] for row in await lab.containers(SANDBOX)} == {serving}
    lab.engine = lab.new_engine()
    await lab.engine.open()
    await lab.engine.remove(spec.task_id, 1)


async def test_a_sandbox_has_no_rights_and_no_output(lab: DockerLab) -> None:
    facts = await lab.api.json("GET", f"containers/{next(iter(await ready(lab)))}/json")
    host = facts["HostConfig"]
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["LogConfig"]["Type"]) == (["ALL"], True, "none")
    assert facts["Name"].startswith("/kohakuriver-sandbox-")
    assert facts["Config"]["Image"].startswith("kohakuriver/sandbox:")


async def test_a_network_of_ours_is_remade_when_it_is_empty(lab: DockerLab) -> None:
    await ready(lab)
    await lab.engine.pool.stop_keeping()
    other = lab.settings.network_subnet.replace("10.23", "10.24")
    changes = {"network_subnet": other, "network_gateway": other.replace("0/24", "1")}
    lab.engine = lab.new_engine(**changes)
    await lab.engine.open()
    facts = await lab.api.json("GET", f"networks/{lab.settings.network_name}")
    assert facts["IPAM"]["Config"][0]["Subnet"] == other
    assert "default via " + changes["network_gateway"] in await run(lab, "/bin/ip", "route")


async def test_a_network_in_use_or_of_others_is_not_touched(lab: DockerLab) -> None:
    spec = await begin(lab, "/bin/sleep", "60")
    other = lab.settings.network_subnet.replace("10.23", "10.24")
    changed = lab.new_engine(network_subnet=other, network_gateway=other.replace("0/24", "1"))
    with pytest.raises(InvalidInput, match="containers still use it"):
        await changed.open()
    await lab.engine.remove(spec.task_id, 1)
    bridge = lab.new_engine(network_name="bridge")
    with pytest.raises(InvalidInput, match="this system did not make it"):
        await bridge.open()


async def test_a_subnet_that_a_route_of_the_node_covers_is_refused_with_its_name(lab: DockerLab) -> None:
    clash = lab.new_engine(network_name=f"{lab.node}-b")  # the lab's own bridge is a route of the node
    with pytest.raises(InvalidInput, match=f"overlaps the route {lab.settings.network_subnet}"):
        await clash.open()


@pytest.mark.parametrize("engine_made_it", [False, True])
async def test_a_making_that_was_cut_off_takes_with_it_what_came_of_it_and_nothing_else(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch, engine_made_it: bool
) -> None:
    """A later runner may choose a name that an earlier one's sandbox has, and not hear that it is taken."""
    spec = await begin(lab, "/bin/sleep", "60")
    serving = await sandbox_of(lab, spec)
    number = int((await named(lab, serving)).rpartition("-")[2])
    later = lab.new_engine().sandboxes
    await later.prepare_ground()
    later.next_number = number + 50_000 if engine_made_it else number
    chosen = f"{SANDBOX_NAME}{later.next_number}"
    real = lab.api.create_container
    made: list[str] = []

    async def unheard(name: str, body: dict[str, Any]) -> str:
        if name != chosen:  # the lab's own engine fills its pool meanwhile
            return await real(name, body)
        if engine_made_it:
            made.append(await real(name, body))
        raise Unavailable("the engine went away")

    doomed: list[str] = []
    with monkeypatch.context() as cut:
        cut.setattr(lab.api, "create_container", unheard)
        with pytest.raises(Unavailable):
            await later.make(doomed.append)
    assert doomed == [chosen]
    await later.destroy(chosen)
    there = await present(lab)
    assert serving in there
    assert not there.intersection(made)
    await lab.engine.remove(spec.task_id, 1)


async def named(lab: DockerLab, container_id: str) -> str:
    return str((await lab.api.json("GET", f"containers/{container_id}/json"))["Name"])


async def test_a_workload_whose_sandbox_is_gone_before_it_started_gets_another(lab: DockerLab) -> None:
    spec = lab.spec("/bin/echo", "fine")
    await lab.engine.create(spec, ignore)
    sandbox = await sandbox_of(lab, spec)
    await lab.restart()
    await lab.api.json("DELETE", f"containers/{sandbox}", params={"force": "1"})
    await lab.restart()
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    assert (await lab.engine.wait(spec)).exit_code == 0
    assert spec.stdout_path.read_text() == "fine\n"
    await lab.engine.remove(spec.task_id, 1)
