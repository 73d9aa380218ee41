"""Whoever answers on the host's port and is not the host: it gets no token, whatever the client is doing.

The impostor is an unprivileged process that took the port while the host was down. It records all that it is
sent; it answers as a host would, plays recorded proofs again, or shows a key of its own.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from kohakuriver.client.connection.host_trust import FirstContact, HostAccess, KnownHost
from kohakuriver.client.errors import HostNotProven
from kohakuriver.client.streams.terminal import Start, environment_terminal, task_command, task_terminal
from kohakuriver.wire.trust.host_proof import ProofQuestion, answer_question
from kohakuriver.wire.trust.identity import Identity
from support.clients.command_line import CommandLine
from support.clients.stub_host import CUT, Answer, StubHost, stub_host, task_record
from support.cluster.cluster import wait_for
from support.cluster.impostor import Reply, http_answer, impostor

TOKEN = "kr_canary-of-a-token-that-nobody-else-may-see"
TASK = "310000000000004242"
RUNNING = task_record(TASK, status="running", completed_at=None, exit_code=None)
IMPOSTOR = Identity.generate()


def welcoming(_data: bytes) -> bytes:
    """As a host that likes everything."""
    return http_answer(b"[]")


def of_an_older_version(data: bytes) -> bytes:
    if data.startswith(b"POST /api/prove"):
        return http_answer(b'{"detail": "there is nothing at this address"}', "404 Not Found")
    return http_answer(b"[]")


def with_a_key_of_its_own(data: bytes) -> bytes:
    """Proves that it is itself."""
    if not data.startswith(b"POST /api/prove"):
        return http_answer(b"[]")
    question = msgspec.json.decode(data.partition(b"\r\n\r\n")[2], type=ProofQuestion)
    return http_answer(msgspec.json.encode(answer_question(IMPOSTOR, question)))


def with_a_recorded_proof(host: Identity) -> Reply:
    """Shows the host's key, and a proof that the host once gave to somebody."""
    old = answer_question(host, ProofQuestion(public_key=Identity.generate().public_key))
    return lambda _data: http_answer(msgspec.json.encode(old))


def with_the_key_and_no_proof(host: Identity) -> Reply:
    stolen = {"host_public_key": host.public_key, "proof": "0" * 64}
    return lambda _data: http_answer(json.dumps(stolen).encode())


REPLIES: dict[str, Callable[[Identity], Reply]] = {
    "welcoming": lambda _: welcoming,
    "of an older version": lambda _: of_an_older_version,
    "with a key of its own": lambda _: with_a_key_of_its_own,
    "with a recorded proof": with_a_recorded_proof,
    "with the key and no proof": with_the_key_and_no_proof,
    "saying nothing of HTTP": lambda _: lambda _data: b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}


class User:
    """A user of the command line, whose token comes from `source`, with a host that was there before."""

    def __init__(self, home: Path, source: str, host: Identity, port: int) -> None:
        folder = home / ".kohakuriver"
        folder.mkdir(mode=0o700)
        variables = {"KOHAKURIVER_PORT": str(port)}
        if source == "admin file":
            document = {"url": f"http://127.0.0.1:{port}", "token": TOKEN, "fingerprint": host.fingerprint}
            (folder / "admin_token.json").write_text(json.dumps(document))
        elif source == "admin file of an older host":
            document = {"url": f"http://127.0.0.1:{port}", "token": TOKEN}
            (folder / "admin_token.json").write_text(json.dumps(document))
        elif source == "environment":
            variables |= {"KOHAKURIVER_TOKEN": TOKEN}
            (folder / "host_fingerprints").write_text(f"127.0.0.1:{port} {host.fingerprint}\n")
        else:
            config = folder / "cli_config.py"
            config.write_text(
                f"HOST = '127.0.0.1'\nPORT = {port}\nTOKEN = {TOKEN!r}\n"
                f"HOST_FINGERPRINT = {host.fingerprint!r}\n"
            )
            config.chmod(0o600)
        host_url = None if source == "configuration" else "http://127.0.0.1"
        self.command = CommandLine(home, host_url, variables=variables)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command.argv(*arguments),
            env=self.command.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize(
    "source", ["admin file", "admin file of an older host", "environment", "configuration"]
)
def test_who_took_the_port_gets_no_token(tmp_path: Path, source: str, reply: str) -> None:
    host = Identity.generate()
    with impostor(REPLIES[reply](host)) as somebody:
        user = User(tmp_path, source, host, somebody.port)
        done = user.command.run("node", "list")
        assert TOKEN.encode() not in somebody.heard
        assert done.returncode == 4, done.stderr
        assert b"no token" in done.stderr, "and the user is told why"
        assert TOKEN.encode() not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--", "true"),
        ("task", "wait", TASK),
        ("task", "logs", "-f", TASK),
        ("exec", TASK, "--", "true"),
        ("cp", f"{TASK}:/etc/hostname", "-"),
        ("cp", "/etc/hostname", f"{TASK}:/tmp/"),
        ("ssh", TASK),
        ("ssh", "--proxy", TASK),
        ("ssh", "config"),
        ("vps", "list"),
        ("docker", "tar", "list"),
    ],
)
def test_no_command_gives_a_token_away(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with impostor(with_a_key_of_its_own) as somebody:
        user = User(tmp_path, "admin file", Identity.generate(), somebody.port)
        done = user.command.run(*arguments)
        assert done.returncode == 4, done.stderr
        assert b"/api/prove" in somebody.heard
        assert TOKEN.encode() not in somebody.heard


@pytest.mark.parametrize("known", [True, False])
def test_completion_gives_no_token_away_and_trusts_nobody_anew(tmp_path: Path, known: bool) -> None:
    with impostor(with_a_key_of_its_own) as somebody:
        user = User(tmp_path, "environment", Identity.generate(), somebody.port)
        if not known:
            (tmp_path / ".kohakuriver" / "host_fingerprints").unlink()
        words = {"COMP_WORDS": "kohakuriver node status ", "COMP_CWORD": "3"}
        done = user.command.run(_KOHAKURIVER_COMPLETE="bash_complete", **words)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")
        assert b"/api/prove" in somebody.heard
        assert TOKEN.encode() not in somebody.heard


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("task", "wait", TASK), f"/api/status/{TASK}"),
        (("task", "logs", "-f", TASK), f"/api/tasks/{TASK}/stdout"),
        (("run", "--", "true"), f"/api/tasks/{TASK}/stdout"),
    ],
)
def test_a_long_wait_gives_no_token_away_when_the_host_restarts(
    tmp_path: Path, arguments: tuple[str, ...], path: str
) -> None:
    host, over = StubHost(), threading.Event()

    def output() -> Iterator[object]:
        yield b"first"
        over.wait(60)
        yield CUT

    try:
        user = User(tmp_path, "admin file", host.identity, host.port)
        host.answer("POST", "/api/submit", {"message": "accepted", "task_ids": [TASK]}, 202)
        host.answer("GET", f"/api/status/{TASK}", RUNNING)
        for stream in ("stdout", "stderr"):
            host.script("GET", f"/api/tasks/{TASK}/{stream}", lambda _: Answer(output()))
        waiting = user.start(*arguments)
        wait_for(lambda: host.calls("GET", path), "the client to wait", 30)
        assert any(request.headers.get("authorization") == f"Bearer {TOKEN}" for request in host.requests)
    finally:
        host.close()
    with impostor(with_a_key_of_its_own, host.port) as somebody:
        over.set()
        host.drop_connections()
        _, told = waiting.communicate(timeout=60)
        assert b"/api/prove" in somebody.heard
        assert TOKEN.encode() not in somebody.heard
        assert (waiting.returncode, b"no token" in told) == (4, True), told


@pytest.mark.parametrize("reply", REPLIES)
def test_a_terminal_that_comes_back_gives_no_token_away(reply: str) -> None:
    host = Identity.generate()
    with impostor(REPLIES[reply](host)) as somebody:
        access = HostAccess(somebody.url, TOKEN, KnownHost(host.fingerprint, "the test"))
        for opened in (
            task_terminal(access, TASK, {"rows": 24, "cols": 80}),
            task_command(access, TASK, Start(argv=("true",))),
            environment_terminal(access, "base"),
        ):
            with pytest.raises(HostNotProven), opened:
                raise AssertionError("there is no terminal here")
        assert TOKEN.encode() not in somebody.heard


def test_the_first_contact_is_told_and_another_key_is_refused_by_file_and_line(tmp_path: Path) -> None:
    with stub_host() as host:
        host.answer("GET", "/api/nodes", [])
        port = host.port
        command = CommandLine(tmp_path, host.url, variables={"KOHAKURIVER_TOKEN": TOKEN})
        first = command.run("node", "list")
        assert first.returncode == 0, first.stderr
        assert host.identity.fingerprint in first.stderr.decode()
        assert host.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
        second = command.run("node", "list")
        assert (second.returncode, second.stderr) == (0, b"")
        file = tmp_path / ".kohakuriver" / "host_fingerprints"
        assert file.stat().st_mode & 0o777 == 0o600
    number = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if line.startswith("127."))
    with impostor(with_a_key_of_its_own, port) as somebody:
        refused = command.run("node", "list")
        assert refused.returncode == 4
        assert f"{file}, line {number}" in refused.stderr.decode()
        file.chmod(0o666)
        assert b"chmod 600" in command.run("node", "list").stderr
        assert TOKEN.encode() not in somebody.heard


def test_without_a_token_nothing_needs_to_be_proven(tmp_path: Path) -> None:
    with stub_host() as host:
        host.answer("GET", "/api/nodes", [])
        assert CommandLine(tmp_path, host.url).run("node", "list").returncode == 0
        assert not (tmp_path / ".kohakuriver" / "host_fingerprints").exists()


def test_somebody_at_the_other_loopback_address_is_not_asked(tmp_path: Path) -> None:
    """`localhost` is ::1 as well, where anybody can listen and pass the proof on to the host."""
    import socket

    with stub_host() as host:
        host.answer("GET", "/api/nodes", [])
        user = User(tmp_path, "admin file", host.identity, host.port)
        try:
            other = socket.create_server(("::1", host.port), family=socket.AF_INET6)
        except OSError:
            pytest.skip("this machine has no ::1")
        with other:
            other.setblocking(False)
            for name in ("localhost", "::1", "127.0.0.2"):
                done = user.command.run("node", "list", KOHAKURIVER_HOST=name)
                assert done.returncode == 0, done.stderr
            with pytest.raises(BlockingIOError):
                other.accept()


def test_a_proof_is_of_no_use_for_another_question_or_as_a_link_key() -> None:
    host, node = Identity.generate(), Identity.generate()
    from kohakuriver.wire.trust.identity import Side

    answer = answer_question(host, ProofQuestion(public_key=node.public_key))
    keys = node.link_keys(host.public_key, Side.NODE)
    assert bytes.fromhex(answer.proof) not in (keys.host_to_node, keys.node_to_host)
    other = answer_question(host, ProofQuestion(public_key=Identity.generate().public_key))
    assert other.proof != answer.proof


def test_a_first_contact_is_kept_once_for_each_address(tmp_path: Path) -> None:
    told: list[str] = []
    contact = FirstContact(tmp_path / "deep" / "host_fingerprints", told.append)
    one, two = Identity.generate().fingerprint, Identity.generate().fingerprint
    contact.check("a:1", one)
    contact.check("a:1", one)
    contact.check("a:2", two)
    assert len(told) == 2
    with pytest.raises(HostNotProven, match="line 3"):
        contact.check("a:1", two)
    with pytest.raises(HostNotProven, match="not known yet"):
        FirstContact(contact.file, None).check("b:1", one)
