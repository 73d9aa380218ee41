"""What is in a pipe outlives whoever held it, thanks to the keeper, which ends when nobody needs it."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.runner.engines.docker.output import pipe_keeper, pipe_keeper_process
from kohakuriver.runner.engines.docker.output.pipe_keeper import PipeKeeper
from support.machine.processes import is_running, processes_naming, wait_until

NAME = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A runner's state folder whose path is too long for a socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    yield folder
    for pid in keepers(folder):
        os.kill(pid, signal.SIGKILL)


def keepers(folder: Path) -> list[int]:
    return [pid for pid in processes_naming(f"{folder}/pipes.sock") if is_running(pid)]


def give(keeper: PipeKeeper, content: bytes, name: str = NAME) -> None:
    """Have a pipe with that content kept, which nobody else has open afterwards."""
    reading, writing = os.pipe()
    os.write(writing, content)
    keeper.keep(name, [reading])
    os.close(reading)
    os.close(writing)


def content(keeper: PipeKeeper, name: str = NAME) -> bytes | None:
    """What is in the pipe that is kept, read to its end; None: nothing is kept."""
    descriptors = keeper.take(name)
    try:
        return os.read(descriptors[0], 1000) if descriptors else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_the_next_runner_finds_what_the_last_one_had_kept(folder: Path) -> None:
    first = PipeKeeper(folder)
    first.open([])
    (pid,) = keepers(folder)
    assert os.getsid(pid) == pid, "a session of its own, which no signal to the runner's reaches"
    give(first, b"last words")
    first.close()
    second = PipeKeeper(folder)
    second.open([NAME])
    assert keepers(folder) == [pid]
    assert content(second) == b"last words"
    assert second.take("b" * 64) == []


def test_what_is_given_anew_takes_the_place_of_the_old_and_what_is_dropped_is_gone(folder: Path) -> None:
    keeper = PipeKeeper(folder)
    give(keeper, b"old")
    give(keeper, b"new")
    assert content(keeper) == b"new"
    keeper.drop(NAME)
    assert keeper.take(NAME) == []
    keeper.drop(NAME)


def test_a_new_runner_drops_what_belongs_to_nothing_any_more(folder: Path) -> None:
    first = PipeKeeper(folder)
    names = [f"{number:064}" for number in range(700)]
    for name in names:
        give(first, name.encode(), name)
    first.close()
    second = PipeKeeper(folder)
    second.open([names[5], names[699], NAME])
    left = {name: content(second, name) for name in names}
    assert {name: said for name, said in left.items() if said} == {
        name: name.encode() for name in (names[5], names[699])
    }


def test_one_that_was_killed_is_replaced_and_fails_nobody(folder: Path) -> None:
    keeper = PipeKeeper(folder)
    give(keeper, b"lost")
    (pid,) = keepers(folder)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), 10, "its end")
    assert keeper.take(NAME) == []
    keeper.drop(NAME)
    give(keeper, b"kept")
    assert content(keeper) == b"kept"
    assert len(keepers(folder)) == 1


def test_one_that_hangs_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_keeper, "ANSWER_SECONDS", 0.5)
    keeper = PipeKeeper(folder)
    give(keeper, b"out of reach")
    (pid,) = keepers(folder)
    os.kill(pid, signal.SIGSTOP)
    assert keeper.take(NAME) == []
    monkeypatch.setattr(pipe_keeper, "ANSWER_SECONDS", 10.0)
    give(keeper, b"kept")
    assert content(keeper) == b"kept"
    assert len(keepers(folder)) == 2


def test_a_folder_that_cannot_be_used_fails_nobody(tmp_path: Path) -> None:
    keeper = PipeKeeper(tmp_path / "missing")
    keeper.open([])
    give(keeper, b"not kept")
    assert keeper.take(NAME) == []
    keeper.drop(NAME)
    keeper.close()


def test_what_is_no_request_changes_nothing(folder: Path) -> None:
    keeper = PipeKeeper(folder)
    give(keeper, b"kept")
    keeper.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        directory = os.open(folder, os.O_PATH)
        stranger.connect(f"/proc/self/fd/{directory}/pipes.sock")
        os.close(directory)
        stranger.settimeout(10)
        assert stranger.recv(100) == NAME.encode()
        assert stranger.recv(100) == b"."
        for odd in (b"take", b"TAKE " + NAME.encode(), b"\xff\xfe", b"x" * 20000):
            stranger.send(odd)
            assert stranger.recv(100) == b"none"
    keeper = PipeKeeper(folder)
    keeper.open([NAME])
    assert content(keeper) == b"kept"


@pytest.fixture
def alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """A keeper in a thread of this process that looks often whether it is needed."""
    monkeypatch.setattr(pipe_keeper_process, "PATROL_SECONDS", 0.05)
    directory = os.open(folder, os.O_PATH)
    path = f"/proc/self/fd/{directory}/pipes.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        keeper = pipe_keeper_process.Keeper(listener, path)
        thread = threading.Thread(target=keeper.run, daemon=True)
        thread.start()
        yield thread
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        thread.join(10)
        assert not thread.is_alive(), "with its socket gone it ends, whatever it keeps"
    os.close(directory)


def test_it_ends_once_no_pipe_can_hold_anything_more(folder: Path, alone: threading.Thread) -> None:
    keeper = PipeKeeper(folder)
    reading, writing = os.pipe()
    keeper.keep(NAME, [reading])
    keeper.close()
    alone.join(0.3)
    assert alone.is_alive(), "somebody can still write it"
    os.write(writing, b"last words")
    os.close(writing)
    alone.join(0.3)
    assert alone.is_alive(), "it holds something"
    os.read(reading, 100)
    os.close(reading)
    alone.join(10)
    assert not alone.is_alive()


def test_while_a_runner_is_there_it_stays(folder: Path, alone: threading.Thread) -> None:
    keeper = PipeKeeper(folder)
    keeper.open([])
    alone.join(0.3)
    assert alone.is_alive()
    keeper.close()
    alone.join(10)
    assert not alone.is_alive()


def test_with_its_folder_removed_it_ends(folder: Path, alone: threading.Thread) -> None:
    keeper = PipeKeeper(folder)
    give(keeper, b"nobody will ask")
    keeper.close()
    alone.join(0.3)
    assert alone.is_alive()
    (folder / "pipes.sock").unlink()
    alone.join(10)
    assert not alone.is_alive()
