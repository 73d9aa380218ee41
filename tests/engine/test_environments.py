"""Environment containers on the host, on the real engine."""

import asyncio
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_body import environment_body
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import (
    Conflict,
    InvalidInput,
    KohakuRiverError,
    NotFound,
)
from support.engines.environment_probes import run_in, status_of, wait_until
from support.engines.registry import lab_registry
from support.engines.static_images import busybox_tree, import_bytes, remove_container, tree

pytest_plugins = ["support.engines.environment_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_a_container_is_made_listed_stopped_started_and_deleted(
    service: EnvironmentService, environment: str, busybox: str, container: str
) -> None:
    (row,) = [row for row in await service.list_containers() if row.name == environment]
    assert (row.container, row.image, row.status) == (container, busybox, "running")
    assert abs(row.created.timestamp() - time.time()) < 60
    run_in(container, "echo kept > /kept")
    with pytest.raises(Conflict, match="stop it first"):
        await service.delete_container(environment)
    began = time.monotonic()
    await service.stop_container(environment)
    assert time.monotonic() - began < 5, "it ends on SIGTERM and needs no kill"
    async with asyncio.timeout(10):  # newer engines list it as running for a moment
        while await status_of(service, environment) != "exited":
            await asyncio.sleep(0.05)
    await service.start_container(environment)
    assert run_in(container, "cat /kept") == "kept\n"
    await service.stop_container(environment)
    await service.delete_container(environment)
    assert await status_of(service, environment) is None


async def test_a_container_that_runs_is_deleted_by_force(
    service: EnvironmentService, environment: str, container: str
) -> None:
    (row,) = [row for row in await service.list_containers() if row.name == environment]
    assert (row.container, len(row.id)) == (container, 64)
    await service.delete_container(environment, force=True)
    assert await status_of(service, environment) is None


async def test_limits_are_fractions_of_the_machine_and_mounts_are_there(
    api: DockerApi, service: EnvironmentService, container: str, settings: EnvironmentSettings
) -> None:
    machine = await api.json("GET", "info")
    limits = (await api.json("GET", f"containers/{container}/json"))["HostConfig"]
    assert limits["NanoCpus"] == int(machine["NCPU"] * 0.25 * 1e9)
    assert limits["Memory"] == int(machine["MemTotal"] * 0.25)
    run_in(container, "echo shared > /shared/file")
    assert (settings.shared_data_dir / "file").read_text() == "shared\n"
    with pytest.raises(subprocess.CalledProcessError):
        run_in(container, "echo no > /extra/file")


async def test_the_hosts_default_working_dir_is_that_of_its_containers(
    api: DockerApi, environment: str, busybox: str, settings: EnvironmentSettings
) -> None:
    link = EngineLink()
    try:
        service = EnvironmentService(replace(settings, working_dir="/shared"), link)
        await service.create_container(busybox, environment)
        assert run_in(f"kohakuriver-env-{environment}", "pwd") == "/shared\n"
    finally:
        await link.close()


def test_tasks_privileged_of_the_host_and_a_missing_shared_folder(settings: EnvironmentSettings) -> None:
    machine = {"MemTotal": 8 << 30, "NCPU": 4}
    changed = replace(settings, privileged=True, working_dir="/shared")
    plain = environment_body(settings, "base", "image", machine, has_shared=True)
    other = environment_body(changed, "base", "image", machine, has_shared=False)
    assert not plain["HostConfig"]["Privileged"]
    assert plain["HostConfig"]["CapDrop"] == ["MKNOD", "NET_RAW"]
    assert other["HostConfig"]["Privileged"]
    assert other["WorkingDir"] == "/"


async def test_a_name_is_taken_once_and_an_unknown_one_is_not_found(
    service: EnvironmentService, environment: str, busybox: str, container: str
) -> None:
    with pytest.raises(Conflict, match="already"):
        await service.create_container(busybox, environment)
    for action in (service.start_container, service.stop_container, service.create_tar):
        with pytest.raises(NotFound, match="no environment container"):
            await action(f"{environment}x")


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "X", "", "a\n", "x" * 64])
async def test_names_that_are_none_are_refused_everywhere(service: EnvironmentService, name: str) -> None:
    for action in (
        lambda: service.create_container("image", name),
        lambda: service.start_container(name),
        lambda: service.stop_container(name),
        lambda: service.delete_container(name),
        lambda: service.migrate_container(name),
        lambda: service.create_tar(name),
        lambda: service.inspect_tarballs(name),
        lambda: service.delete_tarballs(name),
        lambda: service.open_terminal(name, 24, 80),
    ):
        with pytest.raises(InvalidInput):
            await action()


@pytest.mark.parametrize(
    ("applets", "program"), [(("sh",), "sh"), (("sleep",), "sleep"), (("tail",), "tail")]
)
async def test_an_image_with_little_in_it_is_kept_alive(
    api: DockerApi, service: EnvironmentService, environment: str, applets: tuple[str, ...], program: str
) -> None:
    await import_bytes(api, busybox_tree(applets=applets), f"{environment}-little:1", "USER 1000")
    await service.create_container(f"{environment}-little:1", environment)
    facts = await api.json("GET", f"containers/kohakuriver-env-{environment}/json")
    assert (facts["Path"], facts["Config"]["User"]) == (program, "0")
    async with asyncio.timeout(10):  # an engine's word on a command that ended at once may take a moment
        while (facts := await api.json("GET", f"containers/{facts['Id']}/json"))["State"]["Pid"] == 0:
            await asyncio.sleep(0.05)
    assert await status_of(service, environment) == "running"
    ticks = [_cpu_ticks(facts["State"]["Pid"]), _cpu_ticks(facts["State"]["Pid"])]
    assert ticks[1] - ticks[0] < 5, "it waits, it does not spin"


def _cpu_ticks(pid: int) -> int:
    """CPU time after some more wall time has gone by, with that of children that ended."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        time.sleep(0.05)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


async def test_a_shell_that_has_not_even_sleep_is_kept_alive(
    api: DockerApi, service: EnvironmentService, environment: str
) -> None:
    listed = subprocess.run(["ldd", "/bin/sh"], check=True, capture_output=True, text=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    files = {path.lstrip("/"): Path(path).read_bytes() for path in ("/bin/sh", *libraries)}
    await import_bytes(api, tree(files), f"{environment}-shell:1")
    await service.create_container(f"{environment}-shell:1", environment)
    with pytest.raises(subprocess.CalledProcessError):
        run_in(f"kohakuriver-env-{environment}", "sleep 0")
    pid = (await api.json("GET", f"containers/kohakuriver-env-{environment}/json"))["State"]["Pid"]
    # It has given sleeping up when it waits in a read of its standard input, which is a pipe.
    await wait_until(lambda: "pipe" in Path(f"/proc/{pid}/wchan").read_text())
    assert await status_of(service, environment) == "running"


async def test_an_image_without_a_shell_is_a_clear_error_and_leaves_no_container(
    api: DockerApi, service: EnvironmentService, environment: str
) -> None:
    await import_bytes(api, tree({"data": b"x"}), f"{environment}-bare:1")
    with pytest.raises(InvalidInput, match="no shell"):
        await service.create_container(f"{environment}-bare:1", environment)
    assert await status_of(service, environment) is None


async def test_a_container_that_is_not_ours_is_never_touched(
    service: EnvironmentService, environment: str, busybox: str
) -> None:
    name = f"kohakuriver-env-{environment}"
    subprocess.run(["docker", "run", "-d", "--name", name, busybox, "sleep", "1000"], check=True)
    for action in (
        service.start_container,
        service.stop_container,
        service.delete_container,
        service.create_tar,
        service.migrate_container,
        lambda known: service.open_terminal(known, 24, 80),
        lambda known: service.create_container(busybox, known),
    ):
        with pytest.raises(Conflict, match="not made by KohakuRiver"):
            await action(environment)
    assert await status_of(service, environment) is None
    assert run_in(name, "echo alive") == "alive\n"


async def test_a_label_that_an_image_brought_along_makes_no_container_ours(
    service: EnvironmentService, container: str, environment: str, api: DockerApi
) -> None:
    await service.create_tar(environment)
    image = f"kohakuriver/{environment}:base"
    copy = f"{environment}-copy"
    subprocess.run(["docker", "run", "-d", "--name", copy, image, "sleep", "1000"], check=True)
    try:
        labels = (await api.json("GET", f"containers/{copy}/json"))["Config"]["Labels"]
        assert labels["kohakuriver.managed"] != "true"
        assert [row.container for row in await service.list_containers() if environment in row.container] == [
            container
        ]
    finally:
        await remove_container(api, copy)


async def test_migration_copies_a_foreign_container_and_leaves_it_as_it_was(
    api: DockerApi, service: EnvironmentService, environment: str, busybox: str
) -> None:
    subprocess.run(
        ["docker", "run", "-d", "--name", environment, busybox, "sh", "-c", "echo own > /own; sleep 1000"],
        check=True,
    )
    try:
        await wait_until(lambda: "own" in run_in(environment, "ls /"))
        await service.migrate_container(environment)
        assert run_in(f"kohakuriver-env-{environment}", "cat /own") == "own\n"
        assert run_in(environment, "cat /own") == "own\n"
        with pytest.raises(Conflict, match="already"):
            await service.migrate_container(environment)
        with pytest.raises(NotFound, match="has no container"):
            await service.migrate_container(f"{environment}x")
        image = (await api.json("GET", f"containers/kohakuriver-env-{environment}/json"))["Image"]
        await service.stop_container(environment)
        await service.delete_container(environment)
        assert await inspect_image(api, image) is None, "the image that only migration needed is gone"
        assert await inspect_image(api, busybox) is not None
    finally:
        await remove_container(api, environment)


async def test_an_image_that_cannot_be_had_is_named(
    service: EnvironmentService, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kohakuriver.host.environments.service.PULL_SECONDS", 1)
    with pytest.raises(KohakuRiverError, match=r"127\.0\.0\.1:9/none:1 cannot be pulled onto this machine"):
        await service.create_container("127.0.0.1:9/none:1", environment)


async def test_a_busy_registry_is_asked_again_for_an_environment(
    service: EnvironmentService, environment: str
) -> None:
    with lab_registry() as lab:
        lab.put(environment, "1")
        lab.busy = [503] * 4
        await service.create_container(f"{lab.address}/{environment}:1", environment)
    assert await status_of(service, environment) == "running"


async def test_a_moved_tag_is_pulled_for_an_environment_if_asked_for(
    api: DockerApi, service: EnvironmentService, environment: str
) -> None:
    with lab_registry() as lab:
        image = f"{lab.address}/{environment}:1"

        async def digest(pull: PullPolicy) -> str:
            await service.create_container(image, environment, pull=pull)
            await service.stop_container(environment)
            made_of = (await api.json("GET", f"containers/kohakuriver-env-{environment}/json"))["Image"]
            await service.delete_container(environment)
            return str(made_of)

        lab.put(environment, "1")
        with pytest.raises(NotFound, match="not on the host's machine"):
            await digest(PullPolicy.NEVER)
        first = await digest(PullPolicy.MISSING)
        lab.put(environment, "1", config={"Env": ["MOVED=1"]})
        assert await digest(PullPolicy.MISSING) == await digest(PullPolicy.NEVER) == first
        assert await digest(PullPolicy.ALWAYS) != first
