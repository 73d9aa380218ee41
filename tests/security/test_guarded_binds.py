"""Set-user-id programs and devices that a workload leaves in /local_temp or /shared have no effect in others.

First the mounts by themselves, then with an engine. An ordinary mount of the same folder stands beside each,
in which the attack works.
"""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kohakuriver.files.system import calls as system_calls
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.inside import guarded_binds
from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedBinds, GuardedFolder
from support.engines import DockerLab, docker_lab, ignore
from support.tiny_program import is_root_program

pytestmark = [pytest.mark.docker, pytest.mark.root]

_NOBODY = 65534
_FORBIDDEN = os.ST_NOSUID | os.ST_NODEV


def _plant(folder: Path) -> None:
    """Leave a set-user-id program of root's, and /dev/null for everybody."""
    (folder / "program").write_bytes(is_root_program())
    (folder / "program").chmod(0o4755)
    os.mknod(folder / "device", stat.S_IFCHR, os.makedev(1, 3))
    (folder / "device").chmod(0o666)


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_WRONLY))
    except PermissionError:
        return False
    return True


@dataclass
class _Case:
    folder: GuardedFolder
    child: int
    """A process whose parent has this process's mounts."""

    def new_binds(self) -> GuardedBinds:
        """As a runner makes them that begins here after another one."""
        return GuardedBinds(f"kr-test-{self.folder.start.name}-{os.getpid()}", (self.folder,))

    @property
    def source(self) -> Path:
        return Path(self.folder.path)

    def mounted(self, binds: GuardedBinds) -> Path:
        place = Path(binds.source_of(self.folder.path, self.child))
        assert place != self.source, binds.notices()
        return place


def _times_mounted(place: Path) -> int:
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(place) for line in table)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[_Case]:
    folder = GuardedFolder("data", tmp_path, ("outer", "inner"))
    Path(folder.path).mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as child:
        made = _Case(folder, child.pid)
        try:
            yield made
        finally:
            child.kill()
            made.new_binds().remove()
            assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_what_is_left_in_a_folder_has_no_effect_through_the_mount(case: _Case) -> None:
    _plant(case.source)
    place = case.mounted(case.new_binds())
    assert sorted(os.listdir(place)) == ["device", "program"]
    assert os.statvfs(place).f_flag & _FORBIDDEN == _FORBIDDEN
    assert _opens(case.source / "device")
    assert not _opens(place / "device")


@pytest.mark.parametrize("old_kernel", [False, True])
def test_what_is_mounted_inside_comes_along_without_effect(
    case: _Case, monkeypatch: pytest.MonkeyPatch, old_kernel: bool
) -> None:
    def unknown(_target: bytes) -> None:
        raise OSError(errno.ENOSYS, "no such call")

    if old_kernel:
        monkeypatch.setattr(system_calls, "forbid_suid_and_devices", unknown)
    binds = case.new_binds()
    for name, options in (("before with space", "ro,noexec"), ("after", "rw")):
        inside = case.source / name
        inside.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", inside], check=True)
    try:
        place = case.mounted(binds)
        for name in ("before with space", "after"):
            flags = os.statvfs(place / name).f_flag
            assert flags & _FORBIDDEN == _FORBIDDEN, name
            assert bool(flags & os.ST_RDONLY) == (name != "after")
            assert (place / name).stat().st_dev == (case.source / name).stat().st_dev
        subprocess.run(["umount", case.source / "after"], check=True)
        place = case.mounted(binds)
        assert (place / "after").stat().st_dev == case.source.stat().st_dev
    finally:
        subprocess.run(["umount", "-q", case.source / "after"], check=False)
        subprocess.run(["umount", case.source / "before with space"], check=True)


def test_what_was_mounted_over_the_folder_since_is_what_workloads_get(case: _Case) -> None:
    binds = case.new_binds()
    (case.source / "below").touch()
    assert os.listdir(case.mounted(binds)) == ["below"]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", case.source], check=True)
    try:
        (case.source / "above").touch()
        assert os.listdir(case.mounted(binds)) == ["above"]
    finally:
        subprocess.run(["umount", case.source], check=True)
    assert os.listdir(case.mounted(binds)) == ["below"]


def test_mounts_are_never_stacked_and_go_at_the_end(case: _Case) -> None:
    (case.source / "kept").write_text("kept")
    for _ in range(3):
        place = case.mounted(case.new_binds())
        assert _times_mounted(place) == 1
    system_calls.detach_mount(bytes(place))
    for binds in (case.new_binds(), case.new_binds()):
        assert _times_mounted(case.mounted(binds)) == 1
    binds.remove()
    assert _times_mounted(place) == 0
    assert not place.parent.exists()
    assert (case.source / "kept").read_text() == "kept"


def test_a_folder_that_is_gone_leaves_no_empty_one_in_its_place(case: _Case) -> None:
    binds = case.new_binds()
    place = case.mounted(binds)
    shutil.rmtree(case.source)
    assert binds.source_of(case.folder.path, case.child) == case.folder.path
    assert not place.exists()


@pytest.mark.parametrize("name", ["outer", "outer/inner"])
def test_a_link_in_the_place_of_the_folder_is_refused(case: _Case, tmp_path: Path, name: str) -> None:
    binds = case.new_binds()
    (tmp_path / "victim" / "inner").mkdir(parents=True)
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).symlink_to(tmp_path / "victim")
    with pytest.raises(EngineFault, match="link"):
        binds.source_of(case.folder.path, case.child)


def test_where_nothing_can_be_mounted_the_folder_itself_is_given_and_a_notice_says_so(
    case: _Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    binds = case.new_binds()
    place = case.mounted(binds)
    binds.remove()
    with monkeypatch.context() as patch:
        patch.setattr(system_calls, "mount", refused)
        assert binds.source_of(case.folder.path, case.child) == case.folder.path
    assert ["Operation not permitted" in notice for notice in binds.notices()] == [True]
    assert not place.exists()
    assert case.mounted(binds) == place
    assert binds.notices() == []


def test_an_engine_with_other_mounts_is_given_the_folder_itself(case: _Case) -> None:
    binds = case.new_binds()
    script = "sleep 600 & echo $! ; wait"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        child = int(engine.stdout.readline())
        try:
            for seen in (child, None):
                assert binds.source_of(case.folder.path, seen) == case.folder.path
                binds.refresh()
                assert ["does not see" in notice for notice in binds.notices()] == [True]
        finally:
            os.kill(child, 9)
            engine.kill()


@dataclass
class _Guarded:
    lab: DockerLab
    source: Path

    def spec(self) -> WorkloadSpec:
        mounts = (Mount(str(self.source), "/guarded"), Mount(str(self.source.parent), "/plain"))
        return self.lab.spec(*self.lab.argv("sleep", "600"), mounts=mounts)

    async def run_as_nobody(self, spec: WorkloadSpec, *argv: str) -> int:
        """Return the exit status of a program in the workload, which itself is root's."""
        name = f"kohakuriver-task-{spec.task_id}"
        user = f"{_NOBODY}:{_NOBODY}"
        return subprocess.run(["docker", "exec", "-u", user, name, *argv], check=False).returncode

    def forget_mounts(self) -> None:
        """As a reboot does."""
        owner = guarded_binds.owner_name(self.lab.node, self.lab.settings.state_dir)
        GuardedBinds(owner, ()).remove()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[_Guarded]:
    folder = GuardedFolder("data", tmp_path, ("plain", "data"))
    source = Path(folder.path)
    source.mkdir(parents=True)
    async with docker_lab(tmp_path / "lab", guarded_folders=(folder,)) as lab:
        found = _Guarded(lab, source)
        try:
            yield found
        finally:
            found.forget_mounts()


@pytest.mark.anyio
async def test_in_a_workload_set_user_id_programs_and_devices_have_no_effect(guarded: _Guarded) -> None:
    _plant(guarded.source)
    spec = guarded.spec()
    await guarded.lab.engine.create(spec, ignore)
    await guarded.lab.engine.start(spec.task_id, 1)
    for place, has_effect in (("/plain/data", True), ("/guarded", False)):
        ran = await guarded.run_as_nobody(spec, f"{place}/program")
        opened = await guarded.run_as_nobody(spec, "/bin/sh", "-c", f"echo x > {place}/device")
        assert (ran == 0, opened == 0) == (has_effect, has_effect), place
    assert guarded.lab.engine.notices() == []
    await guarded.lab.engine.remove(spec.task_id, 1)


@pytest.mark.anyio
async def test_a_container_made_before_a_reboot_gets_its_folder_and_takes_files(guarded: _Guarded) -> None:
    (guarded.source / "file").write_text("there")
    spec = guarded.spec()
    await guarded.lab.engine.create(spec, ignore)
    guarded.forget_mounts()
    await guarded.lab.restart()
    await guarded.lab.engine.start(spec.task_id, 1)
    assert await guarded.run_as_nobody(spec, "/bin/grep", "there", "/guarded/file") == 0
    guarded.forget_mounts()
    content = [piece async for piece in guarded.lab.engine.files.read_archive(spec.task_id, "/guarded/file")]
    assert b"there" in b"".join(content)
    await guarded.lab.engine.remove(spec.task_id, 1)
