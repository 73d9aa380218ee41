"""Containers of VPSs: what they are like, what becomes of their networks, restarts of their engine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kohakuriver.models.errors import EngineFault, Unavailable
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import CpuBinding, UserIds, WorkloadSpec
from support.engines.labs import DockerLab, abandon, docker_lab, ignore, until
from support.engines.private_docker import own_daemon

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

SANDBOX = "kohakuriver.sandbox"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=1) as real:
        yield real


async def inspected(lab: DockerLab, spec: WorkloadSpec) -> dict[str, Any]:
    facts: dict[str, Any] = await lab.api.json("GET", f"containers/kohakuriver-vps-{spec.task_id}/json")
    return facts


async def sandbox_of(lab: DockerLab, spec: WorkloadSpec) -> str:
    return str((await inspected(lab, spec))["HostConfig"]["NetworkMode"]).removeprefix("container:")


async def until_one_idle_sandbox(lab: DockerLab) -> str:
    async def is_there() -> bool:
        rows = await lab.containers(SANDBOX)
        return len(rows) == 1 and rows[0]["State"] == "running" and len(lab.engine.pool.idle) == 1

    await until(is_there)
    return str((await lab.containers(SANDBOX))[0]["Id"])


async def test_a_vps_has_the_limits_rights_mounts_and_environment_of_its_spec(
    lab: DockerLab, tmp_path: Path
) -> None:
    spec = replace(
        lab.vps(hostname="workbench"),
        cores=1,
        memory_bytes=96 << 20,
        binding=CpuBinding((0,), (0,)),
        working_dir="/work",
        user=UserIds(1234, 1234),
        env=(("A", "1 2"),),
        mounts=(Mount(str(tmp_path), "/mine"),),
    )
    await lab.begin_vps(spec)
    facts = await inspected(lab, spec)
    host = facts["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (10**9, 96 << 20, 96 << 20)
    assert (host["CpusetCpus"], host["CpusetMems"]) == ("0", "0")
    assert facts["Config"]["Labels"]["kohakuriver.task_type"] == "vps"
    script = 'id -u; hostname; cat /etc/hostname; pwd; echo "$A"; echo x > /mine/file'
    assert await lab.run(spec, "sh", "-c", script) == (0, "0\nworkbench\nworkbench\n/work\n1 2\n")
    assert ((tmp_path / "file").read_text(), (tmp_path / "file").stat().st_uid) == ("x\n", 0)
    await lab.engine.remove(spec.task_id, 1)


@pytest.mark.parametrize("privileged", [True, False])
async def test_a_vps_is_privileged_where_its_spec_says_so(lab: DockerLab, privileged: bool) -> None:
    spec = lab.vps()
    spec = replace(spec, body=structs.replace(spec.body, privileged=privileged))
    await lab.engine.create(spec, ignore)
    assert (await inspected(lab, spec))["HostConfig"]["Privileged"] is privileged
    await lab.engine.remove(spec.task_id, 1)


async def test_the_tools_are_there_and_cannot_be_written(lab: DockerLab) -> None:
    spec = lab.vps(image="bare")
    await lab.begin_vps(spec)
    status, said = await lab.run(spec, "sh", "-c", "echo x > /.kohakuriver/busybox")
    assert (status, "Read-only file system" in said) == (1, True)
    await lab.engine.remove(spec.task_id, 1)


async def test_a_vps_sandbox_is_its_own_and_ends_with_it(lab: DockerLab) -> None:
    idle = await until_one_idle_sandbox(lab)
    spec = lab.vps()
    await lab.begin_vps(spec)
    own = await sandbox_of(lab, spec)
    assert own != idle
    await lab.restart()  # what the labels say counts after a crash too
    await lab.engine.remove(spec.task_id, 1)
    assert own not in {row["Id"] for row in await lab.containers(SANDBOX)}
    assert own not in {sandbox.id for sandbox in lab.engine.pool.idle}
    assert list((lab.settings.state_dir / "net").iterdir()) == []


async def test_a_vps_that_cannot_be_made_gives_its_sandbox_to_nobody(lab: DockerLab) -> None:
    idle = await until_one_idle_sandbox(lab)
    spec = replace(lab.vps(), mounts=(Mount("/nonexistent/source", "/x"),))
    with pytest.raises(EngineFault, match="no such path on this node"):
        await lab.engine.create(spec, ignore)
    assert await until_one_idle_sandbox(lab) == idle
    assert await lab.containers(f"kohakuriver.task_id={spec.task_id}") == []


async def test_a_sandbox_whose_vps_was_never_made_is_cleared_by_the_next_runner(lab: DockerLab) -> None:
    idle = await until_one_idle_sandbox(lab)
    left = await lab.engine.own_sandboxes.make("box", None)
    await abandon(lab.engine)
    lab.engine = lab.new_engine()
    await lab.engine.open()
    assert left.id not in {row["Id"] for row in await lab.containers(SANDBOX)}
    assert await until_one_idle_sandbox(lab) == idle


async def test_a_connection_reaches_what_listens_in_a_task_too(lab: DockerLab) -> None:
    task = lab.spec("/bin/nc", "-l", "-p", "7777", "-e", "/bin/echo", "hello")
    await lab.engine.create(task, ignore)
    await lab.engine.start(task.task_id, 1)
    said = [b""]

    async def answers() -> bool:
        try:
            reader, writer = await lab.engine.ports.dial(task.task_id, 7777)
        except Unavailable:
            return False
        said[0] = await reader.read()
        writer.close()
        return True

    await until(answers)
    assert said == [b"hello\n"]
    await lab.engine.remove(task.task_id, 1)


async def test_a_network_that_fell_leads_nowhere_and_never_to_this_machine(lab: DockerLab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await lab.api.json("POST", f"containers/{await sandbox_of(lab, spec)}/kill")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"network of .* is down"):
            await lab.engine.ports.dial(spec.task_id, port)
    await lab.restart()
    with pytest.raises(Unavailable, match=r"network of .* is down"):
        await lab.engine.ports.dial(spec.task_id, port)
    server.close()
    await server.wait_closed()
    await lab.engine.remove(spec.task_id, 1)


async def test_what_fell_and_lost_its_address_goes_on_with_another(lab: DockerLab) -> None:
    spec = lab.vps(hostname="workbench")
    address = await lab.begin_vps(spec)
    await lab.put(spec, "/file", "intact")
    sandbox = await sandbox_of(lab, spec)
    await lab.engine.stop(spec.task_id, 1, 5)
    await lab.engine.wait(spec)
    await lab.api.json("POST", f"containers/{sandbox}/kill")
    thief = lab.vps(address=address)
    assert await lab.begin_vps(thief) == address
    await lab.engine.vps.start_again(spec.task_id, 1)
    assert spec.session is not None
    now = await lab.engine.vps.set_up(spec.task_id, 1, spec.session)
    assert now not in ("", address)
    assert f"{now}\tworkbench\n" in (await lab.got(spec, "/etc/hosts") or "")
    assert await lab.got(spec, "/file") == "intact"
    for one in (spec, thief):
        await lab.engine.remove(one.task_id, 1)


async def test_a_vps_that_fell_with_its_engine_is_started_again_as_it_was(tmp_path: Path) -> None:
    with own_daemon(tmp_path / "daemon") as daemon:
        async with docker_lab(tmp_path / "lab", pool_size=1, url=daemon.url) as lab:
            spec = lab.vps()
            address = await lab.begin_vps(spec)
            await lab.put(spec, "/file", "intact")
            waiting = asyncio.ensure_future(lab.engine.wait(spec))
            await asyncio.to_thread(daemon.end)
            daemon.start()
            await asyncio.to_thread(daemon.await_answer)
            assert (await waiting).lost_to_system
            await lab.engine.vps.start_again(spec.task_id, 1)
            assert spec.session is not None
            assert await lab.engine.vps.set_up(spec.task_id, 1, spec.session) == address
            assert await lab.got(spec, "/file") == "intact"
            again = asyncio.ensure_future(lab.engine.wait(spec))
            await lab.engine.stop(spec.task_id, 1, 10)
            assert not (await again).lost_to_system
            await lab.engine.remove(spec.task_id, 1)


async def test_a_new_runner_starts_again_what_fell_while_nobody_looked(tmp_path: Path) -> None:
    with own_daemon(tmp_path / "daemon") as daemon:
        async with docker_lab(tmp_path / "lab", pool_size=1, url=daemon.url) as lab:
            spec = lab.vps()
            address = await lab.begin_vps(spec)
            await lab.put(spec, "/file", "intact")
            await abandon(lab.engine)
            await asyncio.to_thread(daemon.end)
            daemon.start()
            await asyncio.to_thread(daemon.await_answer)
            lab.engine = lab.new_engine()
            await lab.engine.open()
            found = {one.task_id: one.state for one in await lab.engine.list_workloads()}
            assert found == {spec.task_id: WorkloadState.EXITED}
            assert (await lab.engine.wait(spec)).lost_to_system
            await lab.engine.vps.start_again(spec.task_id, 1)
            assert spec.session is not None
            assert await lab.engine.vps.set_up(spec.task_id, 1, spec.session) == address
            assert await lab.got(spec, "/file") == "intact"
            await lab.engine.remove(spec.task_id, 1)
