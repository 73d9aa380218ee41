"""`cp` against a scripted host: what breaks is never a success, and what a stranger sends does no harm."""

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import CUT, Answer, Request, StubHost
from support.messages.file_trees import make_tree

TASK = "310000000000004242"
BASE = f"/api/fs/{TASK}"


def entry(path: str, kind: str = "directory") -> dict[str, Any]:
    is_dir = kind == "directory"
    return {"name": path, "path": path, "type": kind, "is_dir": is_dir, "size": 0, "uid": 5, "gid": 6}


def serve(host: StubHost, entries: dict[str, str], stream: tuple[Any, ...] = ()) -> None:
    """What `stat` knows, and what a download gives; an upload is taken whole."""

    def stat(request: Request) -> Answer:
        path = request.query["path"]
        if path not in entries:
            return Answer({"detail": f"there is no {path}"}, 404)
        return Answer(entry(path, entries[path]))

    host.answer("GET", "/api/tasks/resolve", {"task_id": TASK})
    host.script("GET", f"{BASE}/stat", stat)
    host.script("GET", f"{BASE}/archive", lambda _: Answer(stream))
    host.answer("PUT", f"{BASE}/archive", {"message": "done"})


def tar(*names: str, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ROOT = {"/": "directory"}


def test_a_download_that_breaks_off_fails_and_leaves_no_short_file(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    stream = tar("file", content=os.urandom(200_000))
    for pieces in (
        (stream[:100_000], CUT),
        (stream[:-1024], CUT),
        (stream[:100_000],),
        (stream[: -len(stream) % 512 - 10_240],),
    ):
        serve(host, {**ROOT, "/file": "file"}, pieces)
        done = command.run("cp", "lab:/file", str(tmp_path / "file"))
        assert done.returncode == 1, pieces[-1]
        assert done.stderr.startswith(b"Error: ")
        assert done.stderr.count(b"\n") == 1
        names = [name for name in os.listdir(tmp_path) if not name.startswith(".config")]
        assert names in ([], ["file"])
        if names:
            assert (tmp_path / "file").stat().st_size == 200_000
            (tmp_path / "file").unlink()
        done = command.run("cp", "lab:/file", "-")
        assert done.returncode == 1


def test_a_hostile_host_writes_nothing_outside(command: CommandLine, host: StubHost, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    for name in ("d/../../mine", "/mine", "mine", "../mine"):
        serve(host, {**ROOT, "/d": "directory"}, (tar("d/a", name),))
        done = command.run("cp", "lab:/d", str(tmp_path / "into"))
        assert done.returncode == 1, name
        assert not (tmp_path / "mine").exists()
        assert not (tmp_path / "into/mine").exists()


def test_an_upload_is_unpacked_at_the_root_with_the_folders_owner(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    """So that the engine takes links that lead out of the folder, and the files belong to their user."""
    make_tree(tmp_path / "tree")
    os.unlink(tmp_path / "tree/fifo")
    serve(host, {**ROOT, "/home/u": "directory"})
    received: list[bytes] = []

    def take(request: Request) -> Answer:
        received.append(request.body)
        assert request.query == {"path": "/"}
        return Answer({"message": "done"})

    host.script("PUT", f"{BASE}/archive", take)
    done = command.run("cp", str(tmp_path / "tree"), "lab:/home/u")
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == b""
    with tarfile.open(fileobj=io.BytesIO(received[0])) as archive:
        members = archive.getmembers()
    assert all(member.name.startswith("home/u/tree") for member in members)
    assert {(member.uid, member.gid) for member in members} == {(5, 6)}
    (put,) = host.calls("PUT", f"{BASE}/archive")
    assert put.headers["transfer-encoding"] == "chunked"
    assert put.headers["content-type"] == "application/x-tar"


def test_an_upload_that_the_host_refuses_is_told_with_its_sentence(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    serve(host, ROOT)
    host.answer("PUT", f"{BASE}/archive", {"detail": "the disk of the node is full"}, 409)
    done = command.run("cp", str(tmp_path / "file"), "lab:/file")
    assert (done.returncode, done.stderr) == (1, b"Error: the disk of the node is full\n")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("a", "b"), 2, "exactly one"),
        (("lab:/a", "lab:/b"), 2, "exactly one"),
        (("-", "-"), 2, "exactly one"),
        (("./lab:a", "b"), 2, "exactly one"),
        (("lab:/", "there"), 2, "name the folders"),
        (("/", "lab:/there"), 2, "name the folders"),
        (("missing", "lab:/"), 3, "missing"),
        (("lab:/missing", "there"), 3, "no /missing"),
        (("lab:",), 2, "DESTINATION"),
    ],
)
def test_what_cannot_be_copied_is_said_before_anything_is(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...], status: int, word: str
) -> None:
    serve(host, ROOT)
    done = command.run("cp", *arguments)
    assert (done.returncode, word in done.stderr.decode()) == (status, True), done.stderr
    assert host.calls("PUT", f"{BASE}/archive") == host.calls("GET", f"{BASE}/archive") == []


def test_several_sources_go_into_a_folder(command: CommandLine, host: StubHost, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    serve(host, {**ROOT, "/into": "directory", "/one": "file", "/two": "file"})
    received: list[bytes] = []

    def take(request: Request) -> Answer:
        received.append(request.body)
        return Answer({"message": "done"})

    host.script("PUT", f"{BASE}/archive", take)
    done = command.run("cp", "-r", str(tmp_path / "one"), str(tmp_path / "two"), "lab:/into")
    assert done.returncode == 0, done.stderr
    for body, name in zip(received, ("into/one", "into/two"), strict=True):
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            assert archive.getnames() == [name]

    def give(request: Request) -> Answer:
        return Answer((tar(request.query["path"].strip("/"), content=b"from there"),))

    host.script("GET", f"{BASE}/archive", give)
    done = command.run("cp", "lab:/one", "lab:/missing", "lab:/two", str(tmp_path))
    assert (done.returncode, b"/missing" in done.stderr) == (3, True)
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["from there"] * 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("lab:/one", "lab:/two", "there"), "folder"),
        (("one", "two", "lab:/file"), "folder"),
        (("one", "lab:/two", "lab:/into"), "exactly one"),
        (("one", "-", "lab:/into"), "by themselves"),
        (("lab:/one", "lab:/two", "-"), "by themselves"),
    ],
)
def test_several_sources_are_refused_before_the_first_is_copied(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...], word: str
) -> None:
    serve(host, {**ROOT, "/into": "directory", "/file": "file"})
    done = command.run("cp", *arguments)
    assert (done.returncode, word in done.stderr.decode()) == (2, True), done.stderr
    assert host.calls("PUT", f"{BASE}/archive") == host.calls("GET", f"{BASE}/archive") == []


def test_a_task_that_is_not_there_is_not_taken_for_a_missing_path(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    host.answer("GET", "/api/tasks/resolve", {"task_id": TASK})
    host.answer("GET", f"{BASE}/stat", {"detail": f"there is no task {TASK}"}, 404)
    done = command.run("cp", "lab:/x", str(tmp_path))
    assert (done.returncode, done.stderr.decode()) == (3, f"Error: there is no task {TASK}\n")


def test_a_long_copy_shows_how_far_it_is(command: CommandLine, host: StubHost, tmp_path: Path) -> None:
    stream = tar("file", content=bytes(3 << 20))
    go_on = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield stream[: 2 << 20]
        go_on.wait(20)
        yield stream[2 << 20 :]

    serve(host, {**ROOT, "/file": "file"})
    host.script("GET", f"{BASE}/archive", lambda _: Answer(pieces()))
    argv = command.argv("cp", "lab:/file", str(tmp_path / "copy"))
    with pty_session(argv, command.environment()) as terminal:
        terminal.wait_for("Copying lab:/file: 2M")
        go_on.set()
        assert terminal.wait() == 0
    assert (tmp_path / "copy").stat().st_size == 3 << 20
