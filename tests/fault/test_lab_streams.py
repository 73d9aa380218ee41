"""Streams between host and runner pass the lab's link: they work over it, and are late or held up with it."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.wire.terminal_frames import Start, control_frame
from support.clients.pty_session import pty_session
from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import BIN
from support.cluster.terminal_client import echo, terminal_of
from support.cluster.vps import remove_vps
from support.lab.lab import Lab
from support.machine.debian_tree import ssh_image
from support.messages.file_trees import facts_of, make_tree

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "n2"
SSH_ENVIRONMENT = "with-ssh"


@pytest.fixture
def task(lab: Lab) -> Iterator[str]:
    """One that sleeps on the node; what a test does with it passes the node's link as streams."""
    before = lab.nodes[NODE].counts().get("streams", 0)
    task_id = lab.submit("sleep", "600", targets=[NODE], required_cores=0)
    lab.await_state(task_id, "running")
    yield task_id
    lab.mend(NODE)
    lab.client.post(f"/api/kill/{task_id}")
    lab.finished(task_id)
    assert lab.nodes[NODE].counts()["streams"] > before


def test_a_terminal_works_over_the_link(lab: Lab, task: str) -> None:
    environment = {**os.environ, "HOME": str(lab.host_home), **lab.cli_environment()}
    with pty_session([str(BIN / "kohakuriver"), "connect", task], environment) as terminal:
        terminal.send("echo I am he''re\r")
        terminal.wait_for("I am here")
        terminal.send("exit 4\r")
        assert terminal.wait() == 4


def test_a_command_works_over_the_link(lab: Lab, task: str) -> None:
    sent = os.urandom(4 << 20)
    done = lab.cli("exec", "-i", task, "--", "sh", "-c", "cat; echo no >&2; exit 3", input=sent)
    assert (done.returncode, done.stdout, done.stderr) == (3, sent, b"no\n")


def test_files_are_copied_both_ways_over_the_link(lab: Lab, task: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", many=300)
    (tmp_path / "large").write_bytes(os.urandom(8 << 20))
    for name in ("tree", "large"):
        copied(lab, str(tmp_path / name), f"{task}:/{name}")
        copied(lab, f"{task}:/{name}", str(tmp_path / f"{name}-back"))
    assert facts_of(tmp_path / "tree-back") == facts_of(tmp_path / "tree")
    assert (tmp_path / "large-back").read_bytes() == (tmp_path / "large").read_bytes()


def copied(lab: Lab, source: str, destination: str) -> None:
    done = lab.cli("cp", source, destination)
    assert done.returncode == 0, done.stderr


def test_ssh_works_through_the_gateway_over_the_link(lab: Lab, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    before = lab.nodes[NODE].counts().get("streams", 0)
    with vps_with_ssh(lab, public_key_of(key)) as vps:
        sent = os.urandom(2 << 20)
        told = lab.cli("ssh", "-i", str(key), vps, "cat; exit 5", input=sent)
        assert (told.returncode, told.stdout) == (5, sent), told.stderr
    assert lab.nodes[NODE].counts()["streams"] > before


def test_a_cut_link_holds_an_open_stream_up_until_it_is_mended(lab: Lab, task: str) -> None:
    with cat_in(lab, task) as stream:
        lab.cut(NODE)
        stream.send(b"\0a")
        lab.await_node(NODE, "offline")
        with pytest.raises(TimeoutError):
            stream.recv(timeout=0)
        lab.mend(NODE)
        while b"a" not in stream.recv(timeout=60):
            pass
        echo(stream, b"b")


def test_a_slow_link_delays_an_open_stream(lab: Lab, task: str) -> None:
    with cat_in(lab, task) as stream:
        lab.slow(NODE, delay_ms=200)
        begun = time.monotonic()
        echo(stream, b"a")
        # There and back; no load makes it shorter.
        assert time.monotonic() - begun >= 0.4


@contextmanager
def cat_in(lab: Lab, task: str) -> Iterator[ClientConnection]:
    """A command that says what it is told, and has done so once."""
    with terminal_of(lab, f"/ws/task/{task}/exec") as stream:
        stream.send(control_frame(Start(("cat",), rows=24, cols=80)))
        echo(stream, b"w")
        yield stream


@contextmanager
def vps_with_ssh(lab: Lab, public_key: str) -> Iterator[str]:
    write_ssh_environment(lab)
    body = {"container_name": SSH_ENVIRONMENT, "target_hostname": NODE, "ssh_public_key": public_key}
    task_id = str(lab.api("POST", "/api/vps/create", json=body)["task_id"])
    try:
        lab.await_state(task_id, "running")
        yield task_id
    finally:
        remove_vps(lab, task_id)


def write_ssh_environment(lab: Lab) -> None:
    """Of an image that the machine's own engine has; the lab's node takes it from shared storage."""

    async def image() -> str:
        api = await DockerApi.connect()
        try:
            return await ssh_image(api)
        finally:
            await api.close()

    path = lab.containers / f"{SSH_ENVIRONMENT}-1000000000.tar"
    subprocess.run(["docker", "save", "-o", str(path), asyncio.run(image())], check=True)
