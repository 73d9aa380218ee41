"""What a workload's container is like, on the real engine."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.times import engine_time
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.names import task_container_name
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.models.spec.task_files import SCRIPT_PLACE
from kohakuriver.runner.docker_parts import DockerParts, DockerPartsSettings
from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.spec import CpuBinding, ImageChoice, UserIds, WorkloadSpec
from kohakuriver.wire.registry_credentials import RegistryCredential
from support.engines.docker_images import busybox_image, changed_image
from support.engines.labs import DockerLab, docker_lab, ignore

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=2) as real:
        yield real


async def run(lab: DockerLab, spec: WorkloadSpec) -> ExitResult:
    await lab.engine.create(spec, ignore)
    try:
        await lab.engine.start(spec.task_id, 1)
        return await lab.engine.wait(spec)
    finally:
        await lab.engine.remove(spec.task_id, 1)


async def output(lab: DockerLab, *argv: str, **changes: Any) -> str:
    spec = lab.spec(*argv, **changes)
    result = await run(lab, spec)
    assert result.exit_code == 0, spec.stderr_path.read_text()
    return spec.stdout_path.read_text()


async def inspected(lab: DockerLab, spec: WorkloadSpec) -> dict[str, Any]:
    facts: dict[str, Any] = await lab.api.json("GET", f"containers/{task_container_name(spec.task_id)}/json")
    return facts


async def test_localhost_has_the_addresses_that_are_there(lab: DockerLab) -> None:
    """Where IPv6 is off, a name for ::1 has programs connect to what nobody can listen on."""
    spec = lab.spec("/bin/sh", "-c", "cat /etc/hosts; echo ---; cat /proc/net/if_inet6 2>/dev/null; exit 0")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    hosts, _, addresses = spec.stdout_path.read_text().partition("---\n")
    await lab.engine.remove(spec.task_id, 1)
    has_loopback = any(line.split()[-1:] == ["lo"] for line in addresses.splitlines())
    assert ("::1\tlocalhost" in hosts, "127.0.0.1\tlocalhost\n" in hosts) == (has_loopback, True), hosts


async def test_an_image_without_a_shell_runs(lab: DockerLab) -> None:
    bare = ImageChoice(registry_image="bare")
    assert (await run(lab, lab.spec("/true", image=bare))).exit_code == 0
    text = await output(lab, "/cat", "/etc/hostname", image=bare)
    assert text.startswith("kr-test-")


@pytest.mark.parametrize("user", [UserIds(0, 0), UserIds(4321, 4321)])
async def test_a_script_runs_as_the_tasks_user_and_cannot_be_written(lab: DockerLab, user: UserIds) -> None:
    script = b'#!/bin/sh\nid -u; echo "<$1>"; echo more >> "$0" || cat\n'
    spec = lab.spec(SCRIPT_PLACE, "a b", script=script, stdin=b"its input", user=user)
    await lab.engine.create(spec, ignore)
    pipe = await lab.engine.inputs.open(spec.task_id, 1)
    await lab.engine.start(spec.task_id, 1)
    await pipe.write(spec.stdin or b"")
    await pipe.end()
    assert (await lab.engine.wait(spec)).exit_code == 0
    await pipe.close()
    await lab.engine.remove(spec.task_id, 1)
    assert spec.stdout_path.read_text() == f"{user.uid}\n<a b>\nits input"


async def test_arguments_pass_through_no_shell(lab: DockerLab) -> None:
    words = ("a b", "$HOME", ";exit 9", "*", "", "--", "-n", "ü\n")
    text = await output(lab, "/bin/printf", "<%s>", *words)
    assert text == "".join(f"<{word}>" for word in words)


async def test_the_images_own_entry_point_health_check_and_volume_have_no_say(lab: DockerLab) -> None:
    reference = f"river-test/tricks:{lab.node[-8:]}"
    await changed_image(
        lab.api,
        reference,
        Entrypoint=["/bin/echo", "entry point"],
        Cmd=["x"],
        Healthcheck={"Test": ["CMD", "/bin/false"], "Interval": 10**9},
        Volumes={"/data": {}},
        StopSignal="SIGUSR1",
        User="12:13",
    )
    before = {volume["Name"] for volume in (await lab.api.json("GET", "volumes"))["Volumes"] or ()}
    spec = lab.spec("/bin/id", "-u", image=ImageChoice(registry_image=reference))
    await lab.engine.create(spec, ignore)
    facts = await inspected(lab, spec)
    volumes = {mount["Name"] for mount in facts["Mounts"] if mount["Type"] == "volume"}
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    await lab.api.json("DELETE", f"images/{reference}")
    after = {volume["Name"] for volume in (await lab.api.json("GET", "volumes"))["Volumes"] or ()}
    assert spec.stdout_path.read_text() == "0\n"
    assert "Health" not in facts["State"] or facts["State"]["Health"]["Status"] == "none"
    assert volumes - before
    assert not volumes & after


async def test_user_groups_environment_and_working_directory_are_the_specs(lab: DockerLab) -> None:
    text = await output(
        lab,
        "/bin/sh",
        "-c",
        "id -u; id -g; id -G; pwd; echo $A; echo $B",
        user=UserIds(1234, 2345, (3456, 4567)),
        working_dir="/bin",
        env=(("A", "1 2"), ("B", "x=y")),
    )
    uid, gid, groups, *rest = text.splitlines()
    assert (uid, gid, set(groups.split())) == ("1234", "2345", {"2345", "3456", "4567"})
    assert rest == ["/bin", "1 2", "x=y"]


async def test_what_a_user_writes_to_a_mount_belongs_to_them(lab: DockerLab, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounts = (Mount(str(tmp_path), "/mnt/here"),)
    await output(lab, "/bin/touch", "/mnt/here/file", user=UserIds(1234, 2345), mounts=mounts)
    assert ((tmp_path / "file").stat().st_uid, (tmp_path / "file").stat().st_gid) == (1234, 2345)


async def test_limits_and_pinning_are_in_force(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sleep", "60", cores=2, memory_bytes=32 << 20, binding=CpuBinding((0, 1), (0,)))
    await lab.engine.create(spec, ignore)
    host = (await inspected(lab, spec))["HostConfig"]
    await lab.engine.remove(spec.task_id, 1)
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (2 * 10**9, 32 << 20, 32 << 20)
    assert (host["CpusetCpus"], host["CpusetMems"]) == ("0,1", "0")
    assert host["CapAdd"] == ["SYS_NICE"]
    assert host["CapDrop"] == ["AUDIT_WRITE", "MKNOD", "NET_RAW"]
    assert host["Privileged"] is False
    assert host["OomKillDisable"] is not True
    assert host["RestartPolicy"]["Name"] == "no"


async def test_no_cores_and_no_memory_are_no_limits(lab: DockerLab) -> None:
    spec = lab.spec("/bin/true", cores=0, memory_bytes=0)
    await lab.engine.create(spec, ignore)
    host = (await inspected(lab, spec))["HostConfig"]
    await lab.engine.remove(spec.task_id, 1)
    assert (host["NanoCpus"], host["Memory"], host["CpusetCpus"]) == (0, 0, "")


async def test_exit_status_137_alone_is_not_out_of_memory(lab: DockerLab) -> None:
    result = await run(lab, lab.spec("/bin/sh", "-c", "exit 137"))
    assert (result.exit_code, result.oom_killed) == (137, False)


async def test_what_the_oom_killer_did_is_known_every_time(lab: DockerLab) -> None:
    specs = [lab.spec(*lab.argv("oom"), memory_bytes=16 << 20) for _ in range(6)]
    results = await asyncio.gather(*(run(lab, spec) for spec in specs))
    assert [(result.exit_code, result.oom_killed) for result in results] == [(137, True)] * 6


async def test_read_only_mounts_hold(lab: DockerLab, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("visible")
    script = "cat /m/open; touch /m/x 2>/dev/null && echo written; echo"
    mounts = (Mount(str(tmp_path), "/m", read_only=True),)
    assert await output(lab, "/bin/sh", "-c", script, mounts=mounts) == "visible\n"
    assert os.listdir(tmp_path) == ["open"]


async def test_hosts_resolver_and_host_name_files_are_the_workloads_own(lab: DockerLab) -> None:
    script = "echo '10.9.8.7 evil' >> /etc/hosts; echo changed > /etc/resolv.conf; echo evil > /etc/hostname"
    await output(lab, "/bin/sh", "-c", script)
    show = "cat /etc/hosts /etc/resolv.conf /etc/hostname; hostname; sleep 1"
    # At the same time, so that each sandbox of the pool serves one, and with them the one that served above.
    for text in await asyncio.gather(*(output(lab, "/bin/sh", "-c", show) for _ in range(4))):
        assert "evil" not in text
        assert "changed" not in text
        assert "nameserver 127.0.0.11" in text
        *_, in_file, in_kernel = text.splitlines()
        assert in_file == in_kernel
        assert any(line.endswith(f"\t{in_kernel}") for line in text.splitlines())
    assert list((lab.settings.state_dir / "net").iterdir()) == []


async def test_the_gateway_is_reachable_from_a_workload(lab: DockerLab) -> None:
    text = await output(lab, "/bin/ip", "route")
    assert f"default via {lab.settings.network_gateway}" in text


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "not found": ({"argv": ("nosuch",)}, "'nosuch' was not found"),
    "no such path": ({"argv": ("/bin/nosuch",)}, "'/bin/nosuch' was not found"),
    "a folder": ({"argv": ("/bin",)}, "cannot be executed"),
    "working directory": ({"working_dir": "/bin/busybox/x"}, "working directory '/bin/busybox/x'"),
    "mount": ({"mounts": (Mount("/nonexistent/source", "/x"),)}, "mount of /nonexistent/source"),
    "image": ({"image": ImageChoice(registry_image="river-test/none:1")}, "not on this node"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_cannot_start_says_why_and_leaves_nothing(lab: DockerLab, name: str) -> None:
    changes, words = FAULTS[name]
    spec = lab.spec(*changes.get("argv", ("/bin/true",)), **{k: v for k, v in changes.items() if k != "argv"})
    try:
        sentence = str((await run(lab, spec)).error)
    except EngineFault as error:
        sentence = str(error)
    assert words in sentence
    await lab.engine.remove(spec.task_id, 1)
    assert await lab.containers(f"kohakuriver.task_id={spec.task_id}") == []
    assert list((lab.settings.state_dir / "net").iterdir()) == []


async def test_a_container_of_that_name_that_is_not_ours_is_left_alone(lab: DockerLab) -> None:
    spec = lab.spec("/bin/true")
    body = {"Image": await busybox_image(lab.api), "Entrypoint": ["/bin/true"]}
    foreign = await lab.api.json(
        "POST", "containers/create", params={"name": task_container_name(spec.task_id)}, json=body
    )
    try:
        with pytest.raises(EngineFault):
            await lab.engine.create(spec, ignore)
        assert spec.task_id not in {found.task_id for found in await lab.engine.list_workloads()}
        assert (await lab.api.json("GET", f"containers/{foreign['Id']}/json"))["Id"] == foreign["Id"]
    finally:
        await lab.api.json("DELETE", f"containers/{foreign['Id']}")


async def test_the_oldest_workload_of_the_engine_is_known(lab: DockerLab) -> None:
    """Whatever was touched since it began may be its own, and is not removed for its age."""

    async def no_credentials(_registry: str) -> RegistryCredential:
        return RegistryCredential()

    folder = Mount(str(lab.folder), "/local_temp")
    parts = DockerParts(
        DockerPartsSettings(lab.settings, lab.folder, 10, folder), no_credentials, lab.tunnels, lab.api
    )
    spec = lab.spec("sleep", "600")
    await lab.engine.create(spec, ignore)
    try:
        made = engine_time((await inspected(lab, spec))["Created"])
        oldest = await parts.oldest_workload()
        assert made is not None
        assert oldest is not None
        assert oldest <= made.timestamp()
    finally:
        await lab.engine.remove(spec.task_id, 1)
