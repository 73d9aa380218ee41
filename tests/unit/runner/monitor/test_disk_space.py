"""Full disks are faults of a node and end by themselves; so is a look that hangs, which holds up no other."""

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kohakuriver.runner.monitor import disk_space
from kohakuriver.runner.monitor.disk_space import DiskSpaceWatch, Place, fault_of, notice_of

MIB = 1 << 20


class Disk:
    """What `statvfs` says, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes = 100 << 30
        self.size_bytes = 200 << 30
        self.free_inodes = 1000
        self.hanging: dict[Path, threading.Event] = {}
        monkeypatch.setattr(os, "statvfs", self._statvfs)

    def _statvfs(self, path: Path) -> Any:
        if path in self.hanging:
            self.hanging[path].wait(20)
        return SimpleNamespace(
            f_frsize=4096,
            f_bavail=self.free_bytes // 4096,
            f_blocks=self.size_bytes // 4096,
            f_files=10_000,
            f_favail=self.free_inodes,
        )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


PLACE = Place("LOCAL_TEMP_DIR", Path("/there"))


@pytest.mark.parametrize(
    ("size", "free", "full"),
    [
        (200 << 30, 65 * MIB, False),
        (200 << 30, 63 * MIB, True),
        (100 * MIB, 3 * MIB, False),
        (100 * MIB, 1 * MIB, True),
        (0, 0, False),  # a file system that tells nothing of its size
    ],
)
def test_a_place_is_full_below_64_mib_or_a_fiftieth(disk: Disk, size: int, free: int, full: bool) -> None:
    disk.size_bytes, disk.free_bytes = size, free
    fault = fault_of(PLACE)
    assert (fault is not None) is full
    if fault:
        assert "LOCAL_TEMP_DIR /there is full" in fault


def test_a_place_that_was_full_needs_twice_the_room(disk: Disk) -> None:
    disk.free_bytes = 100 * MIB
    assert fault_of(PLACE) is None
    assert fault_of(PLACE, was_full=True) is not None
    disk.free_bytes = 129 * MIB
    assert fault_of(PLACE, was_full=True) is None


def test_a_place_without_inodes_takes_no_files(disk: Disk) -> None:
    disk.free_inodes = 0
    assert "no more files" in (fault_of(PLACE) or "")


def test_a_folder_that_is_missing_is_no_full_disk(tmp_path: Path) -> None:
    assert fault_of(Place("SHARED_DIR", tmp_path / "nowhere")) is None
    assert os.statvfs(tmp_path)  # the real thing


@pytest.mark.parametrize(
    ("flags", "mode", "lacking"),
    [
        (0, 0o755, "nosuid and nodev,"),
        (os.ST_NOSUID, 0o751, "without nodev,"),
        (os.ST_NOSUID | os.ST_NODEV, 0o755, None),
        (0, 0o700, None),
    ],
)
def test_a_folder_of_workloads_that_others_reach_is_to_be_mounted_safely(
    monkeypatch: pytest.MonkeyPatch, flags: int, mode: int, lacking: str | None
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # in a folder that all may enter
        place = Place("SHARED_DIR", Path(name), Path(name) / "shared_data")
        (Path(name) / "shared_data").mkdir()
        Path(name).chmod(mode)
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flags))
        notice = notice_of(place)
        assert (notice is None) == (lacking is None)
        assert lacking is None or lacking in str(notice)
        assert notice_of(Place("LOCAL_TEMP_DIR", Path(name))) is None
        assert notice_of(Place("SHARED_DIR", Path(name), Path(name) / "missing")) is None


def _watch(scenario: Callable[[DiskSpaceWatch], Any], *places: Place) -> None:
    async def run() -> None:
        watch = DiskSpaceWatch(lambda: places, interval_seconds=0.01)
        running = asyncio.ensure_future(watch.run())
        try:
            await scenario(watch)
        finally:
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(run())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def test_the_fault_comes_and_goes_with_the_room(disk: Disk) -> None:
    async def scenario(watch: DiskSpaceWatch) -> None:
        disk.free_bytes = 0
        await _until(lambda: bool(watch.faults()))
        disk.free_bytes = 100 << 30
        await _until(lambda: not watch.faults())

    _watch(scenario, PLACE)


def test_a_look_that_hangs_is_a_fault_and_holds_up_no_other(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "PATIENCE_SECONDS", 0.02)
    away, full = Place("SHARED_DIR", Path("/away")), Place("LOCAL_TEMP_DIR", Path("/full"))
    release = disk.hanging[away.path] = threading.Event()
    disk.free_bytes = 0

    async def scenario(watch: DiskSpaceWatch) -> None:
        try:
            await _until(lambda: len(watch.faults()) == 2)
            assert any("/away does not answer" in fault for fault in watch.faults())
            assert any("/full is full" in fault for fault in watch.faults())
        finally:
            release.set()
        disk.free_bytes = 100 << 30
        await _until(lambda: not watch.faults())

    _watch(scenario, away, full)
