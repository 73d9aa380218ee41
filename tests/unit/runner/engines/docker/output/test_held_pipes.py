"""What is in a container's pipes is found, held, looked at without taking it out, and found again."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kohakuriver.runner.engines.docker.output.held_pipes import HeldPipes
from kohakuriver.runner.engines.docker.output.pipe_keeper import PipeKeeper

ID = "5" * 64
NAMES = ("init-stdout", "init-stderr")
NAMES_OF_ANOTHER_PROCESS = (f"{'e' * 64}-stdout", f"{'e' * 64}-stderr")
NEWER_NAMES = (f"{ID}-stdout", f"{ID}-stderr")
SHIM = """
import os, subprocess, sys
pipes = {name: os.open(os.path.join(sys.argv[3], name), os.O_RDWR) for name in sys.argv[4:]}
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
for name, text in zip(pipes, sys.stdin):
    os.write(pipes[name], text.encode())
    print("written", flush=True)
os.close(0)
child.wait()
"""


class Shim:
    """A process that looks like a container's shim, with the container's first process below it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.first_pid = int(self._line())

    def say(self, *texts: str) -> None:
        """Write a line to each pipe in turn, and close none."""
        assert self._process.stdin is not None
        for text in texts:
            self._process.stdin.write(f"{text}\n")
            self._process.stdin.flush()
            self._line()

    def end(self) -> None:
        os.kill(self.first_pid, 9)
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def shim(pipes: Path, *names: str) -> Iterator[Shim]:
    argv = [sys.executable, "-c", SHIM, "-id", ID, str(pipes), *names]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        it = Shim(process)
        try:
            yield it
        finally:
            if process.poll() is None:
                it.end()


@pytest.fixture
def pipes(tmp_path: Path) -> Path:
    folder = tmp_path / ID
    folder.mkdir()
    for name in (*NAMES, *NEWER_NAMES, *NAMES_OF_ANOTHER_PROCESS):
        os.mkfifo(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The runner's; with it the keeper goes."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("names", [NAMES, NEWER_NAMES])
def test_last_words_are_there_as_often_as_one_asks(pipes: Path, folder: Path, names: tuple[str, ...]) -> None:
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *names) as it:
        held.hold(0)
        assert held.rest() == (b"", b"")
        it.say("out", "err")
        it.end()
    for _ in range(2):
        assert held.rest() == (b"out\n", b"err\n")
    held.drop()
    assert held.rest() == (b"", b"")


@pytest.mark.parametrize("with_pid", [False, True])
def test_the_next_runner_finds_them_although_nothing_is_left_to_find_them_by(
    pipes: Path, folder: Path, with_pid: bool
) -> None:
    first = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *NAMES) as it:
        first.hold(it.first_pid if with_pid else 0)
        it.say("out", "err")
        it.end()
    for name in NAMES:
        (pipes / name).unlink()
    first.close()
    held = HeldPipes(ID, PipeKeeper(folder))
    held.hold(0)
    assert held.rest() == (b"out\n", b"err\n")
    held.close()
    assert held.rest() == (b"out\n", b"err\n"), "also where nobody was told that the engine was unreachable"
    held.drop()


def test_pipes_of_a_further_process_in_the_container_are_left_alone(pipes: Path, folder: Path) -> None:
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *NAMES_OF_ANOTHER_PROCESS, *NEWER_NAMES) as it:
        it.say("a shell's", "its errors", "out", "err")
        held.hold(it.first_pid)
        assert held.rest() == (b"out\n", b"err\n")
    held.drop()


def test_a_full_pipe_is_seen_to_its_end(pipes: Path, folder: Path) -> None:
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *NAMES):
        held.hold(0)
        writing = os.open(pipes / NAMES[0], os.O_WRONLY | os.O_NONBLOCK)
        written = 0
        for size in (1, 3, 5000):  # in pieces that share pages or not
            with contextlib.suppress(BlockingIOError):
                while True:
                    written += os.write(writing, b"x" * size)
        os.close(writing)
        assert written > 40_000
        assert held.rest() == (b"x" * written, b"")
    held.drop()


def test_a_container_that_is_started_anew_has_other_pipes(pipes: Path, folder: Path) -> None:
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *NAMES) as it:
        held.hold(it.first_pid)
        it.say("not this")
    for name in NAMES:
        (pipes / name).unlink()
        os.mkfifo(pipes / name)
    with shim(pipes, *NAMES) as it:
        held.hold(it.first_pid)
        it.say("but this")
    assert held.rest() == (b"but this\n", b"")
    held.drop()


@pytest.mark.parametrize("left", [(), NAMES[:1]])
def test_a_shim_that_is_ending_does_not_displace_what_is_held(
    pipes: Path, folder: Path, left: tuple[str, ...]
) -> None:
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(pipes, *NAMES) as it:
        held.hold(it.first_pid)
        it.say("out", "err")
    with shim(pipes, *left) as it:
        held.hold(it.first_pid)
    assert held.rest() == (b"out\n", b"err\n")
    held.drop()


def test_what_is_no_pipe_of_the_container_is_left_alone(pipes: Path, folder: Path) -> None:
    other = pipes.with_name("6" * 64)
    pipes.rename(other)
    held = HeldPipes(ID, PipeKeeper(folder))
    with shim(other, *NAMES) as it:
        it.say("somebody else's")
        held.hold(it.first_pid)
        assert held.rest() == (b"", b"")
