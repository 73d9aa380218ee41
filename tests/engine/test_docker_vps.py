"""SSH into VPSs in real containers: who comes in, with what, and where sshd comes from."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.vps import FROM_IMAGE
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.engines.docker.vps import ssh as vps_ssh
from support.clients.ssh_client import SshClient, SshKey, make_key
from support.engines.docker_images import busybox_image
from support.engines.labs import DockerLab, docker_lab, ignore, until
from support.machine.debian_tree import ssh_image

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=0) as real:
        yield real


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SshKey]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder / name) for name in ("host", "mine", "second", "other")}


@pytest.fixture
async def begun(lab: DockerLab) -> AsyncIterator[list[WorkloadSpec]]:
    """VPSs to be cleared away, with their snapshots."""
    specs: list[WorkloadSpec] = []
    yield specs
    for spec in specs:
        await lab.engine.remove(spec.task_id, 0)
        for snapshot in await lab.engine.vps.list_snapshots(spec.task_id):
            await lab.engine.vps.delete_snapshot(spec.task_id, snapshot.at)


class Stage:
    """VPSs of one test, and clients for them."""

    def __init__(
        self, lab: DockerLab, keys: dict[str, SshKey], folder: Path, begun: list[WorkloadSpec]
    ) -> None:
        self.lab, self.keys, self.folder, self.begun = lab, keys, folder, begun

    def vps(self, *args: Any, **setup: Any) -> WorkloadSpec:
        asked: dict[str, Any] = {
            "image": "debian-ssh",
            "ssh_key_mode": SshKeyMode.UPLOAD,
            "authorized_keys": (self.keys["mine"].public, self.keys["second"].public),
            "host_key": self.keys["host"].private,
        }
        return self.lab.vps(*args, **asked | setup)

    async def begin(self, spec: WorkloadSpec) -> SshClient:
        self.begun.append(spec)
        await self.lab.engine.create(spec, ignore)
        await self.lab.engine.start(spec.task_id, spec.attempt)
        return await self.set_up(spec)

    async def set_up(self, spec: WorkloadSpec) -> SshClient:
        assert spec.session is not None
        address = await self.lab.engine.vps.set_up(spec.task_id, spec.attempt, spec.session)
        return SshClient(address, self.keys["host"], self.keys["mine"], self.folder)

    async def sshd_pid(self, spec: WorkloadSpec) -> str:
        return await self.lab.got(spec, "/run/kohakuriver-sshd.pid") or ""


@pytest.fixture
def stage(lab: DockerLab, keys: dict[str, SshKey], tmp_path: Path, begun: list[WorkloadSpec]) -> Stage:
    return Stage(lab, keys, tmp_path, begun)


async def test_the_owners_keys_come_in_as_root_and_others_are_refused(stage: Stage) -> None:
    client = await stage.begin(stage.vps(hostname="workbench"))
    assert await client.run("id -un; hostname") == (0, "root\nworkbench\n")
    assert (await replace(client, key=stage.keys["second"]).run("true"))[0] == 0
    for key in (stage.keys["other"], None):
        status, said = await replace(client, key=key).run("true")
        assert (status, "Permission denied" in said) == (255, True)


async def test_the_host_key_is_the_one_that_was_given(stage: Stage) -> None:
    client = await stage.begin(stage.vps())
    status, said = await replace(client, host_key=stage.keys["other"]).run("true")
    assert (status, "Host key verification failed" in said) == (255, True)


async def test_logins_have_the_vps_environment_and_its_images_path(stage: Stage) -> None:
    env = (
        ("KOHAKURIVER_TASK_ID", "5"),
        ("WITH_BLANKS", "a b # c=d"),
        ("PATH", "/opt/tools:/usr/bin:/bin"),
        ("QUOTED", 'a"b'),
        ("LINES", "a\nPermitRootLogin no"),
        ("HOME", "/nowhere"),
    )
    client = await stage.begin(replace(stage.vps(), env=env))
    _, said = await client.run('echo "$KOHAKURIVER_TASK_ID|$WITH_BLANKS|$PATH|$QUOTED|$LINES|$HOME"')
    assert said == "5|a b # c=d|/opt/tools:/usr/bin:/bin|||/root\n"


async def test_restarts_from_snapshot_and_from_image_keep_keys_and_let_in_the_same(stage: Stage) -> None:
    spec = stage.vps()
    await stage.begin(spec)
    await stage.lab.put(spec, "/usr/local/bin/installed", "#!/bin/sh\necho works\n")
    await stage.lab.run(spec, "chmod", "755", "/usr/local/bin/installed")
    await stage.lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))
    said = {}
    for attempt, restore in ((2, ""), (3, FROM_IMAGE)):
        await stage.lab.engine.remove(spec.task_id, 0)
        client = await stage.begin(stage.vps(spec.task_id, attempt, restore=restore))
        status, text = await client.run("installed || true")
        assert status == 0, text
        said[restore] = text
    assert said[""] == "works\n"
    assert "not found" in said[FROM_IMAGE]


async def test_a_snapshot_holds_none_of_the_vps_keys(stage: Stage) -> None:
    spec = stage.vps()
    await stage.begin(spec)
    at = (await stage.lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))).at
    image = f"kohakuriver-snapshot/vps-{spec.task_id}:{at}"
    made = await stage.lab.api.json("POST", "containers/create", json={"Image": image, "Cmd": ["x"]})
    async with stage.lab.api.stream("GET", f"containers/{made['Id']}/export") as answer:
        content = await answer.read()
    await stage.lab.api.json("DELETE", f"containers/{made['Id']}")
    secret = stage.keys["host"].private.splitlines()[3].encode()
    assert secret not in content


async def test_making_ready_again_is_free_and_revives_what_died(stage: Stage) -> None:
    spec = stage.vps()
    client = await stage.begin(spec)
    first = await stage.sshd_pid(spec)
    await stage.set_up(spec)
    assert await stage.sshd_pid(spec) == first
    await stage.lab.run(spec, "kill", "-9", first.strip())
    # What has the number now is another process, as after a restart from a snapshot.
    await stage.lab.put(spec, "/run/kohakuriver-sshd.pid", "1\n")
    await stage.set_up(spec)
    assert await stage.sshd_pid(spec) not in ("", "1\n", first)
    assert (await client.run("true"))[0] == 0


async def test_another_configuration_is_taken_up(stage: Stage) -> None:
    spec = stage.vps()
    client = await stage.begin(spec)
    assert spec.session is not None
    setup = replace(spec.session, host_key=stage.keys["other"].private, ssh_key_mode=SshKeyMode.NONE)
    await stage.set_up(replace(spec, session=setup))
    async with through_runner(stage.lab, spec, client) as inside:
        assert await replace(inside, host_key=stage.keys["other"], key=None).run("id -un") == (0, "root\n")


async def test_a_runner_that_begins_anew_finds_the_vps_and_its_sshd(stage: Stage) -> None:
    spec = stage.vps()
    client = await stage.begin(spec)
    first = await stage.sshd_pid(spec)
    await stage.lab.restart()
    await stage.set_up(spec)
    assert await stage.sshd_pid(spec) == first
    assert (await client.run("true"))[0] == 0


async def test_without_a_password_one_comes_in_from_inside_alone(stage: Stage) -> None:
    spec = stage.vps(ssh_key_mode=SshKeyMode.NONE, authorized_keys=())
    client = replace(await stage.begin(spec), key=None)
    status, said = await client.run("id -un")
    assert (status, "refused" in said) == (255, True)
    async with through_runner(stage.lab, spec, client) as inside:
        assert await inside.run("id -un") == (0, "root\n")
        assert (await inside.run("true", user="nobody"))[0] == 255
    # The neighbour has everything that the owner has, a key that root's own file holds too.
    neighbour = stage.vps()
    await stage.begin(neighbour)
    await stage.lab.put(stage.begun[0], "/root/.ssh/authorized_keys", stage.keys["mine"].public + "\n")
    await stage.lab.put(neighbour, "/key", stage.keys["mine"].private)
    await stage.lab.run(neighbour, "chmod", "600", "/key")
    options = ("-i", "/key", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no")
    said = await run_image_program(
        stage.lab, neighbour, "/usr/bin/ssh", *options, f"root@{client.address}", "id"
    )
    assert "refused" in said
    assert "uid=0" not in said


@contextlib.asynccontextmanager
async def through_runner(lab: DockerLab, spec: WorkloadSpec, client: SshClient) -> AsyncIterator[SshClient]:
    """The same client as a stream of the gateway comes in: by the runner, which dials from inside."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await lab.engine.ports.dial(spec.task_id, 22)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        yield replace(client, port=server.sockets[0].getsockname()[1])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def run_image_program(lab: DockerLab, spec: WorkloadSpec, *argv: str) -> str:
    process = await lab.engine.processes.open(spec.task_id, ExecRequest(argv))
    said = b""
    try:
        while (piece := await process.read()) is not None:
            said += piece[1]
    finally:
        await process.close()
    return said.decode()


async def image_of(lab: DockerLab, base: str, script: str) -> str:
    """An image that is another one changed by a script."""
    spec = lab.vps(image=base)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    status, said = await lab.run(spec, "sh", "-c", script)
    assert status == 0, said
    reference = f"river-test/changed:{spec.task_id}"
    repo, tag = reference.split(":")
    params = {"container": f"kohakuriver-vps-{spec.task_id}", "repo": repo, "tag": tag}
    await lab.api.json("POST", "commit", params=params, json={})
    await lab.engine.remove(spec.task_id, 1)
    return reference


async def test_an_account_without_a_valid_password_is_not_locked_for_keys(stage: Stage) -> None:
    script = "sed -i 's/^root:[^:]*:/root:!locked:/' /etc/shadow && grep -q '^root:!locked' /etc/shadow"
    image = await image_of(stage.lab, await ssh_image(stage.lab.api), script)
    try:
        client = await stage.begin(stage.vps(image=image))
        assert (await client.run("true"))[0] == 0
    finally:
        await stage.lab.engine.remove(stage.begun[0].task_id, 0)
        await stage.lab.api.json("DELETE", f"images/{image}")


MANAGERS = {
    "apk": "add --no-cache openssh-server",
    "apt-get": "-qq update",
    "dnf": "install -y openssh-server",
    "microdnf": "install -y openssh-server",
    "yum": "install -y openssh-server",
    "zypper": "--non-interactive install --no-recommends openssh-server",
    "pacman": "-Sy --noconfirm openssh",
}


@pytest.mark.parametrize("manager", MANAGERS)
async def test_the_images_package_manager_is_asked_for_sshd_and_its_refusal_is_told(
    stage: Stage, manager: str
) -> None:
    program = f"/bin/{manager}"
    script = f'printf "#!/bin/sh\\necho asked: \\$@ >&2\\nexit 3\\n" > {program}; busybox chmod 755 {program}'
    image = await image_of(stage.lab, await busybox_image(stage.lab.api), script)
    try:
        with pytest.raises(EngineFault, match=f"could not add it: asked: {MANAGERS[manager]}; .*without SSH"):
            await stage.begin(stage.vps(image=image))
    finally:
        await stage.lab.engine.remove(stage.begun[0].task_id, 0)
        await stage.lab.api.json("DELETE", f"images/{image}")


# Has no sshd until `apt-get install` brings it; what packages' scripts would be told is noted down.
HIDDEN = r"""
mv /usr/sbin/sshd /opt/sshd && rm -f /usr/sbin/policy-rc.d && cat > /usr/bin/apt-get <<'END'
#!/bin/sh
echo "$@" >> /asked
case "$*" in *update*) exit 0 ;; esac
/usr/sbin/policy-rc.d ssh start
echo "policy $?" >> /asked
mv /opt/sshd /usr/sbin/sshd
END
chmod 755 /usr/bin/apt-get
"""


async def test_sshd_is_installed_once_and_kept_by_snapshots_without_a_daemon_of_its_own(stage: Stage) -> None:
    image = await image_of(stage.lab, await ssh_image(stage.lab.api), HIDDEN)
    spec = stage.vps(image=image)
    try:
        client = await stage.begin(spec)
        assert (await client.run("true"))[0] == 0
        await stage.lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))
        await stage.lab.engine.remove(spec.task_id, 1)
        again = stage.vps(spec.task_id, 2, image=image)
        client = await stage.begin(again)
        assert (await client.run("true"))[0] == 0
        asked = await stage.lab.got(again, "/asked")
        assert asked == "-qq update\n-qq install -y --no-install-recommends openssh-server\npolicy 101\n"
        assert await stage.lab.got(again, "/usr/sbin/policy-rc.d") is None
    finally:
        await stage.lab.engine.remove(spec.task_id, 0)
        for snapshot in await stage.lab.engine.vps.list_snapshots(spec.task_id):
            await stage.lab.engine.vps.delete_snapshot(spec.task_id, snapshot.at)
        await stage.lab.api.json("DELETE", f"images/{image}")


# Hangs when it is asked for the first time.
HANGING = r"""
mv /usr/sbin/sshd /opt/sshd && rm -f /usr/sbin/policy-rc.d && cat > /usr/bin/apt-get <<'END'
#!/bin/sh
if [ ! -e /begun ]; then echo $$ > /begun; sleep 600; fi
case "$*" in *install*) mv /opt/sshd /usr/sbin/sshd ;; esac
END
chmod 755 /usr/bin/apt-get
"""


async def test_an_installation_that_is_given_up_ends_and_can_be_begun_again(stage: Stage) -> None:
    image = await image_of(stage.lab, await ssh_image(stage.lab.api), HANGING)
    spec = stage.vps(image=image)
    try:
        making_ready = asyncio.ensure_future(stage.begin(spec))

        async def begun() -> bool:
            found = {one.task_id: one.state for one in await stage.lab.engine.list_workloads()}
            is_running = found.get(spec.task_id) is WorkloadState.RUNNING
            return is_running and bool(await stage.lab.got(spec, "/begun"))

        await until(begun)
        making_ready.cancel()
        await asyncio.wait([making_ready])
        hanging = (await stage.lab.got(spec, "/begun") or "").strip()

        async def ended() -> bool:
            return (await stage.lab.run(spec, "test", "-d", f"/proc/{hanging}"))[0] != 0

        await until(ended)
        assert await stage.lab.got(spec, "/usr/sbin/policy-rc.d") is None
        client = await stage.set_up(spec)
        assert (await client.run("true"))[0] == 0
    finally:
        await stage.lab.engine.remove(spec.task_id, 0)
        await stage.lab.api.json("DELETE", f"images/{image}")


async def test_a_port_that_something_else_has_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vps_ssh, "BANNER_SECONDS", 1.0)
    spec = replace(stage.vps(), session=stage.lab.vps().session)
    await stage.begin(spec)
    taker = await stage.lab.engine.processes.open(
        spec.task_id, ExecRequest(("/.kohakuriver/busybox", "nc", "-ll", "-p", "22", "-e", "/bin/true"))
    )
    try:
        with pytest.raises(EngineFault, match="is the port taken"):
            await stage.set_up(replace(spec, session=stage.vps().session))
    finally:
        await taker.close()


async def test_many_come_in_at_the_same_time(stage: Stage) -> None:
    client = await stage.begin(stage.vps())
    results = await asyncio.gather(*(client.run(f"echo {number}") for number in range(25)))
    assert results == [(0, f"{number}\n") for number in range(25)]
