"""Every byte of both streams, on the real engine."""

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import EngineFault
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.faults import NoDiskSpace
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from support.engines.labs import DockerLab, docker_lab, ignore, until
from support.engines.output_times import told_sizes

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

_K16 = 16384


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=2) as real:
        yield real


async def run(lab: DockerLab, spec: WorkloadSpec) -> ExitResult:
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    result = await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    return result


CASES = {
    "nothing": b"",
    "one byte": b"a",
    "empty lines": b"\n" * 1000,
    "no newline at the end": b"first\nlast",
    "carriage returns and zeros": b"a\r\nb\r\n\0\0\n\r",
    "all bytes": bytes(range(256)) * 300,
    "random": random.Random(7).randbytes(3_000_000),
    "line of the buffer's size": b"x" * _K16 + b"\n",
    "buffer's size and no newline": b"x" * _K16,
    "one more than the buffer": b"x" * (_K16 + 1) + b"\n",
    "one more and no newline": b"x" * (_K16 + 1),
    "long lines": b"".join(b"%d" % (n % 10) * n + b"\n" for n in range(16000, 70000, 4111)),
    "a megabyte in a line": b"y" * (1 << 20) + b"\nend\n",
}


@pytest.mark.parametrize("name", CASES)
async def test_every_byte_arrives(lab: DockerLab, tmp_path: Path, name: str) -> None:
    (tmp_path / "data").write_bytes(CASES[name])
    mount = Mount(str(tmp_path / "data"), "/data", read_only=True)
    command = ("/bin/sh", "-c", "cat /data; cat /data >&2")
    spec = lab.spec(*command, mounts=(mount,))
    result = await run(lab, spec)
    assert spec.stdout_path.read_bytes() == CASES[name]
    assert spec.stderr_path.read_bytes() == CASES[name]
    assert (result.stdout_bytes, result.stderr_bytes) == (len(CASES[name]),) * 2
    assert told_sizes(spec.stdout_path.parent) == (len(CASES[name]),) * 2


async def test_interleaved_streams_keep_their_own_order(lab: DockerLab) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    spec = lab.spec("/bin/sh", "-c", script)
    await run(lab, spec)
    assert spec.stdout_path.read_text() == "".join(f"out {n}\n" for n in range(3000))
    assert spec.stderr_path.read_text() == "".join(f"err {n}\n" for n in range(3000))


async def test_a_hundred_megabytes_arrive_byte_for_byte(lab: DockerLab, tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
    spec = lab.spec("/bin/cat", "/data", mounts=(Mount(str(tmp_path / "data"), "/data"),))
    assert (await run(lab, spec)).stdout_bytes == 100 << 20
    assert subprocess.run(["cmp", tmp_path / "data", spec.stdout_path], check=False).returncode == 0


async def test_output_is_readable_while_the_command_runs(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sh", "-c", "echo early; sleep 60")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))

    async def is_there() -> bool:
        return spec.stdout_path.read_bytes() == b"early\n"

    await until(is_there, 5)
    await lab.engine.stop(spec.task_id, 1, 0)
    await waiting
    await lab.engine.remove(spec.task_id, 1)


async def test_a_copy_cut_short_at_any_time_goes_on_without_loss_or_repetition(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sh", "-c", "seq 1 60000; sleep 0.3; seq 60001 120000")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    for pause in (0.01, 0.05, 0.02, 0.1):
        waiting = asyncio.ensure_future(lab.engine.wait(spec))
        await asyncio.wait([waiting], timeout=pause)
        waiting.cancel()
        await asyncio.wait([waiting])
        await lab.restart()
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "".join(f"{n}\n" for n in range(1, 120001))
    assert told_sizes(spec.stdout_path.parent) == (spec.stdout_path.stat().st_size, 0)
    await lab.engine.remove(spec.task_id, 1)


async def test_short_commands_in_a_row_lose_nothing(lab: DockerLab) -> None:
    for number in range(int(os.environ.get("KR_SHORT_RUNS", "25"))):
        spec = lab.spec("/bin/echo", f"run {number}")
        await run(lab, spec)
        assert spec.stdout_path.read_text() == f"run {number}\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, with room for the three files of an attempt and 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=10m,nr_inodes=100", folder], check=True)


async def test_a_full_disk_is_said_and_the_copy_goes_on_by_itself(lab: DockerLab, small: Path) -> None:
    both = "seq 1 50000; seq 1 30000 >&2; echo last"
    spec = lab.spec("/bin/sh", "-c", both, stdout_path=small / "out", stderr_path=small / "err")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))

    async def said() -> bool:
        return any("No space left" in fault for fault in lab.engine.faults())

    await until(said)
    assert not waiting.done()
    make_room(small)
    result = await waiting
    assert lab.engine.faults() == []
    assert result.exit_code == 0
    assert spec.stdout_path.read_text() == "".join(f"{n}\n" for n in range(1, 50001)) + "last\n"
    assert spec.stderr_path.read_text() == "".join(f"{n}\n" for n in range(1, 30001))
    await lab.engine.remove(spec.task_id, 1)


async def test_without_room_for_its_files_a_workload_can_be_made_later(lab: DockerLab, small: Path) -> None:
    spec = lab.spec("/bin/echo", "fine", stdout_path=small / "new" / "out", stderr_path=small / "new" / "err")
    with pytest.raises(NoDiskSpace, match="goes on once there is room"):
        await lab.engine.create(spec, ignore)
    make_room(small)
    assert (await run(lab, spec)).exit_code == 0
    assert spec.stdout_path.read_text() == "fine\n"


@pytest.mark.parametrize("kind", ["link", "fifo"])
async def test_output_is_written_to_regular_files_alone(lab: DockerLab, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "stdout.log"
    if kind == "link":
        path.symlink_to(victim)
    else:
        os.mkfifo(path)
    spec = lab.spec("/bin/echo", "harm", stdout_path=path)
    with pytest.raises(EngineFault, match=r"cannot be written|no regular file"):
        await lab.engine.create(spec, ignore)
    assert victim.read_text() == "precious"
    assert await lab.containers(f"kohakuriver.task_id={spec.task_id}") == []
