"""The copy of output over storage that is full, away, or forgets: every byte arrives, once, in its order."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.contract.faults import NoDiskSpace, StorageUnavailable, says_full
from kohakuriver.runner.engines.docker.output import copy as copy_module
from kohakuriver.runner.engines.docker.output.copy import OutputCopy, OutputPaths
from kohakuriver.runner.engines.docker.output.files import OutputFile, reset_output
from kohakuriver.runner.engines.docker.output.init_words import InitWords

LINES = 2000


def entry(source: str, line: bytes) -> bytes:
    """A whole line as the engine's journal has it."""
    assert len(line) < 128
    message = b"\x0a\x06" + source.encode() + b"\x10" + b"\x80" * 8 + b"\x01" + b"\x1a" + bytes([len(line)])
    message += line
    size = len(message).to_bytes(4, "big")
    return size + message + size


class Storage:
    """Stands before `os.write` of the output files: `trouble` is raised after half of the bytes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.trouble: int | None = None
        self.failures = 0
        self._write = os.write
        patch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.trouble is None:
            return self._write(descriptor, data)
        self.failures += 1
        if len(data) > 1 and self.failures % 2:
            return self._write(descriptor, data[: len(data) // 2])
        raise OSError(self.trouble, os.strerror(self.trouble))


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(copy_module, "FIRST_STUCK_SECONDS", 0.005)
    monkeypatch.setattr(copy_module, "LONGEST_STUCK_SECONDS", 0.01)
    return Storage(monkeypatch)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def expected(letter: str) -> bytes:
    return b"".join(b"%s%d\n" % (letter.encode(), number) for number in range(LINES))


def write_journal(path: Path) -> None:
    entries = (entry("stdout", b"o%d" % n) + entry("stderr", b"e%d" % n) for n in range(LINES))
    path.write_bytes(b"".join(entries))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("ends_early", [False, True])
def test_a_copy_waits_for_storage_and_goes_on(
    tmp_path: Path, storage: Storage, threads: ThreadPoolExecutor, trouble: int, ends_early: bool
) -> None:
    async def scenario() -> None:
        copy = OutputCopy(tmp_path / "journal", OutputPaths(tmp_path / "out", tmp_path / "err"), threads)
        ended = asyncio.Event()
        storage.trouble = trouble
        write_journal(tmp_path / "journal")
        following = asyncio.ensure_future(copy.follow(ended))
        await until(lambda: copy.fault is not None)
        finishing = None
        if ends_early:
            ended.set()
            await following
            finishing = asyncio.ensure_future(copy.finish())
            before = storage.failures
            await until(lambda: storage.failures > before + 2)
            assert not finishing.done()
        storage.trouble = None
        await until(lambda: copy.fault is None)
        ended.set()
        await following
        sizes = await (finishing or copy.finish())
        copy.close()
        assert sizes == (len(expected("o")), len(expected("e")))

    asyncio.run(scenario())
    assert (tmp_path / "out").read_bytes() == expected("o")
    assert (tmp_path / "err").read_bytes() == expected("e")


@pytest.mark.parametrize("trouble", [None, errno.ENOSPC, errno.ESTALE])
def test_what_comes_after_the_journal_is_added_once(
    tmp_path: Path, storage: Storage, threads: ThreadPoolExecutor, trouble: int | None
) -> None:
    write_journal(tmp_path / "journal")
    rest = (b"o-last\n", b"e-last")
    whole = (expected("o") + rest[0], expected("e") + rest[1])

    async def copied(rest: tuple[bytes, bytes]) -> tuple[int, int]:
        copy = OutputCopy(tmp_path / "journal", OutputPaths(tmp_path / "out", tmp_path / "err"), threads)
        storage.trouble = trouble
        finishing = asyncio.ensure_future(copy.finish(rest))
        if trouble is not None and rest[0]:
            await until(lambda: storage.failures > 3)
        storage.trouble = None
        sizes = await finishing
        copy.close()
        return sizes

    assert asyncio.run(copied(rest)) == tuple(map(len, whole))
    # A runner that died before it reported the end begins again, and has nothing left beside the journal.
    assert asyncio.run(copied((b"", b""))) == tuple(map(len, whole))
    assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()) == whole


def test_bytes_that_the_storage_took_and_lost_are_written_again(
    tmp_path: Path, storage: Storage, threads: ThreadPoolExecutor
) -> None:
    """As on a network file system whose server found no room after the write had been taken."""
    write_journal(tmp_path / "journal")

    async def scenario() -> None:
        copy = OutputCopy(tmp_path / "journal", OutputPaths(tmp_path / "out", tmp_path / "err"), threads)
        ended = asyncio.Event()
        following = asyncio.ensure_future(copy.follow(ended))
        await until(lambda: (tmp_path / "err").exists() and (tmp_path / "err").stat().st_size > 0)
        os.truncate(tmp_path / "err", 10)
        ended.set()
        await following
        await copy.finish()
        copy.close()

    asyncio.run(scenario())
    assert (tmp_path / "out").read_bytes() == expected("o")
    assert (tmp_path / "err").read_bytes() == expected("e")


@settings(max_examples=50)
@given(
    cut=st.integers(0, 40),
    pieces=st.lists(st.binary(max_size=12), max_size=8),
    fails=st.sets(st.integers(0, 20)),
)
def test_a_file_holds_each_byte_once_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, cut: int, pieces: list[bytes], fails: set[int]
) -> None:
    path = tmp_path_factory.mktemp("file") / "out"
    whole = b"".join(pieces)
    path.write_bytes(whole[:cut])
    with pytest.MonkeyPatch.context() as patch:
        real, calls = os.write, iter(range(1000))

        def write(descriptor: int, data: memoryview) -> int:
            if next(calls) in fails:
                raise OSError(errno.ENOSPC, "full")
            return real(descriptor, data[:3])

        patch.setattr(os, "write", write)
        file = OutputFile(path)
        for piece in pieces:
            file.take([piece])
            while True:
                try:
                    file.flush()
                except NoDiskSpace:
                    continue
                break
        file.settle()
        file.close()
    assert path.read_bytes() == whole


def test_storage_that_will_never_take_it_is_no_reason_to_wait(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    with pytest.raises(EngineFault, match="cannot be written") as raised:
        reset_output([tmp_path / "in the way" / "out"])
    assert not isinstance(raised.value, StorageUnavailable)


def test_the_engines_words_for_a_full_disk_are_known() -> None:
    assert says_full("write /var/lib/docker/tmp/x: no space left on device: unknown")
    assert says_full("Disk quota exceeded")
    assert not says_full("no such image")


TINI = b"[FATAL tini (7)] exec nosuch failed: No such file or directory\n"
NSENTER = b"nsenter: can't change directory to '/closed': Permission denied\n"


def split(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def passed(words: InitWords, pieces: Iterable[bytes]) -> list[bytes]:
    return [part for piece in pieces for part in words.pass_on([piece])]


@pytest.mark.parametrize(
    ("said", "exit_code", "reason"),
    [
        (TINI, 127, "the command 'nosuch' was not found in the image"),
        (TINI.replace(b"No such file or directory", b"Permission denied"), 126, "cannot be executed"),
        (NSENTER, 1, "the working directory cannot be used: can't change directory to '/closed'"),
    ],
)
@given(sizes=st.lists(st.integers(0, 9), max_size=20))
def test_words_of_the_init_are_the_reason_and_no_output(
    said: bytes, exit_code: int, reason: str, sizes: list[int]
) -> None:
    words = InitWords()
    assert passed(words, split(said, sizes)) == []
    assert words.end(exit_code) == b""
    assert reason in (words.reason(exit_code, "nosuch") or "")


@given(
    begin=st.sampled_from([b"", TINI, NSENTER, TINI[:9], NSENTER[:-1]]),
    more=st.binary(max_size=40),
    sizes=st.lists(st.integers(0, 9), max_size=20),
    exit_code=st.sampled_from([0, 1, 3, 126, 127]),
)
def test_a_program_that_speaks_like_the_init_is_heard_to_the_last_byte(
    begin: bytes, more: bytes, sizes: list[int], exit_code: int
) -> None:
    words, said = InitWords(), begin + more
    heard = b"".join(passed(words, split(said, sizes))) + words.end(exit_code)
    alone = b"\n" not in said[:-1]
    if not alone or exit_code in (0, 3):
        assert heard == said
    assert heard == (b"" if words.reason(exit_code, "x") else said)


def test_what_is_held_back_is_released_with_the_second_line() -> None:
    """A nested init's failure must not keep back what its parent says for as long as that runs."""
    words = InitWords()
    assert words.pass_on([TINI]) == []
    assert words.pass_on([b"next\n"]) == [TINI + b"next\n"]
    assert words.pass_on([b"more"]) == [b"more"]
