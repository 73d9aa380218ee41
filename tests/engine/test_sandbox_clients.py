"""Tunnel clients in real sandboxes: they come back, and neither networks nor reuse depend on them."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.image import find_pause_binary
from kohakuriver.runner.tunnels import arrivals
from support.engines.endpoint_site import EVERYWHERE, Site, site_at
from support.engines.labs import abandon, ignore, until
from support.engines.sandbox_client import client_of
from support.tunnel.services import CLIENT, build_client

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

TASKS = 20
WAITING = "while [ ! -e /go ]; do sleep 0.1; done"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build_client()


@pytest.fixture
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    client: Path | None = getattr(request, "param", CLIENT)
    async with site_at(tmp_path, EVERYWHERE, client=client, pool_size=1) as made:
        yield made


async def connected(site: Site, sandbox: Sandbox) -> None:
    async def is_so() -> bool:
        return site.lab.tunnels.connected(sandbox.id)

    await until(is_so)


async def begin(site: Site, *argv: str, **changes: Any) -> tuple[WorkloadSpec, Sandbox]:
    engine, spec = site.lab.engine, site.lab.spec(*argv, **changes)
    await engine.create(spec, ignore)
    await engine.start(spec.task_id, 1)
    sandbox = (await engine.known_containers.find(spec.task_id, 1)).sandbox
    assert sandbox is not None
    return spec, sandbox


async def let_go(site: Site, spec: WorkloadSpec) -> None:
    """End what a workload is `WAITING` for."""
    process = await site.lab.engine.processes.open(spec.task_id, ExecRequest(("/bin/touch", "/go")))
    try:
        while await process.read() is not None:
            pass
        assert await process.exit_status() == 0
    finally:
        await process.close()


async def end(site: Site, spec: WorkloadSpec) -> str:
    result = await site.lab.engine.wait(spec)
    await site.lab.engine.remove(spec.task_id, 1)
    assert result.exit_code == 0
    return spec.stdout_path.read_text()


async def test_the_client_has_connected_before_the_workload_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer waited for than is promised, as a busy machine may need it."""
    monkeypatch.setattr(arrivals, "COMING_SECONDS", 20.0)
    async with site_at(tmp_path, EVERYWHERE, client=CLIENT, pool_size=0) as site:
        for _ in range(3):
            spec, sandbox = await begin(site, "/bin/true")
            assert site.lab.tunnels.connected(sandbox.id)
            await end(site, spec)


async def test_a_killed_client_comes_back_and_the_workload_keeps_its_network(site: Site) -> None:
    spec, sandbox = await begin(site, "/bin/sh", "-c", f"{WAITING}; ip -4 addr")
    await connected(site, sandbox)
    (killed,) = client_of(sandbox)
    os.kill(killed, signal.SIGKILL)

    async def another_is_connected() -> bool:
        now = client_of(sandbox)
        return bool(now) and killed not in now and site.lab.tunnels.connected(sandbox.id)

    await until(another_is_connected)
    await let_go(site, spec)
    assert f"inet {sandbox.address}/" in await end(site, spec)
    assert sandbox.id in {row["Id"] for row in await site.lab.containers("kohakuriver.sandbox")}


@pytest.mark.parametrize("site", [CLIENT, None], indirect=True)
async def test_sandboxes_are_used_again_with_clients_as_without(site: Site) -> None:
    used = set()
    (ready,) = await site.sandboxes(1)
    for _ in range(TASKS):
        spec, sandbox = await begin(site, "/bin/true")
        await end(site, spec)
        used.add(sandbox.id)
    assert used == {ready.id}


async def test_a_sandbox_whose_client_was_killed_is_clean(site: Site) -> None:
    spec, sandbox = await begin(site, "/bin/true")
    await connected(site, sandbox)
    for pid in client_of(sandbox):
        os.kill(pid, signal.SIGKILL)
    await end(site, spec)
    assert sandbox.id in {idle.id for idle in site.lab.engine.pool.idle}


async def test_a_workload_with_all_rights_that_kills_what_it_sees_leaves_the_client(site: Site) -> None:
    spec, sandbox = await begin(site, "/bin/sh", "-c", "kill -9 -1; echo done", capabilities=("NET_ADMIN",))
    await connected(site, sandbox)
    before = client_of(sandbox)
    await site.lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "done\n"
    assert before
    assert client_of(sandbox) == before
    assert site.lab.tunnels.connected(sandbox.id)
    await site.lab.engine.remove(spec.task_id, 1)


async def test_idle_sandboxes_of_another_client_or_setting_are_made_anew(site: Site) -> None:
    lab = site.lab
    for changes in (
        {"tunnel_client": None},
        {"tunnel_client": CLIENT},
        {"tunnel_client": find_pause_binary()},
    ):
        (before,) = await site.sandboxes(1)
        spec, serving = await begin(site, "/bin/sh", "-c", WAITING)
        assert serving == before
        (idle,) = await site.sandboxes(1)
        await abandon(lab.engine)
        lab.engine = lab.new_engine(**changes)
        await lab.engine.open()
        (after,) = await site.sandboxes(1)
        assert after.id not in (serving.id, idle.id)
        await let_go(site, spec)
        await end(site, spec)
        assert not {serving.id, idle.id} & {row["Id"] for row in await lab.containers("kohakuriver.sandbox")}


@pytest.mark.parametrize("site", [find_pause_binary()], indirect=True)
async def test_a_client_that_does_not_come_up_holds_no_task_up(site: Site) -> None:
    for _ in range(3):
        spec, sandbox = await begin(site, "/bin/echo", "fine")
        assert not site.lab.tunnels.connected(sandbox.id)
        assert await end(site, spec) == "fine\n"


async def test_a_sandbox_without_a_client_only_sleeps(tmp_path: Path) -> None:
    async with site_at(tmp_path, EVERYWHERE, enabled=False, pool_size=1) as site:
        (sandbox,) = await site.sandboxes(1)
        assert client_of(sandbox) == []
