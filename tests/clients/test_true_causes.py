"""Errors name the true cause when what answers is no host of ours, and never print a token."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.wire.messages import EnrolRequest
from kohakuriver.wire.trust.identity import Identity
from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, StubHost

TOKEN = "kr_" + "s3cr3t" * 7
PAGE = b"<html>Welcome to nginx! " + TOKEN.encode() + b"</html>"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Answer(PAGE), b"is no KohakuRiver host"),
        (Answer(PAGE, 404), b"is no KohakuRiver host (HTTP status 404)"),
        (Answer(PAGE, 403), b"is no KohakuRiver host (HTTP status 403)"),
        (Answer({"message": TOKEN}, 404), b"is no KohakuRiver host (HTTP status 404)"),
        (
            Answer(PAGE, 301, {"Location": "https://elsewhere/"}),
            b"points to another address (HTTP status 301)",
        ),
        (Answer(PAGE, 502), b"what stands before it says HTTP status 502"),
    ],
)
def test_another_program_at_the_address_is_called_so(
    command: CommandLine, host: StubHost, answer: Answer, cause: bytes
) -> None:
    host.script("GET", "/api/nodes", lambda _: answer)
    done = command.run("node", "list")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (5, b"", 1)
    assert cause in done.stderr
    assert b"Welcome" not in done.stderr
    assert TOKEN.encode() not in done.stderr


SSH, MAIL = b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ready\r\n\r\n"


@pytest.fixture
def greeting_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Greets as a server of another kind does, whatever it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.sendall(request.param)
                    client.recv(4096)
                    client.shutdown(socket.SHUT_WR)
                    client.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("greeting_port", "token", "status", "cause"),
    [
        (SSH, "", 5, b"(Server disconnected without sending a response.)"),
        (MAIL, "", 5, b"does not speak HTTP"),
        (SSH, TOKEN, 4, b"it does not speak HTTP"),
    ],
    indirect=["greeting_port"],
)
def test_a_port_of_another_kind_is_called_so(
    tmp_path: Path, greeting_port: int, token: str, status: int, cause: bytes
) -> None:
    address = f"http://127.0.0.1:{greeting_port}"
    command = CommandLine(tmp_path, address, variables={"KOHAKURIVER_TOKEN": token})
    done = command.run("node", "list")
    assert done.returncode == status
    assert cause in done.stderr
    assert TOKEN.encode() not in done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [Answer(PAGE), Answer(PAGE, 404), Answer({"message": "no"}, 403)])
async def test_a_runner_says_so_too_and_what_to_look_at(host: StubHost, answer: Answer) -> None:
    host.script("GET", "/api/enrol", lambda _: answer)
    host.script("POST", "/api/enrol", lambda _: answer)
    client = HostClient(host.url, "n1")
    request = EnrolRequest(hostname="n1", public_key=Identity.generate().public_key)
    try:
        for asked in (client.introduction, lambda: client.enrol(request)):
            with pytest.raises(Unavailable, match="no KohakuRiver host; look at HOST_ADDRESS and HOST_PORT"):
                await asked()
    finally:
        await client.close()


@pytest.mark.parametrize("odd", [f"{TOKEN}\nx", f"{TOKEN} x", f"{TOKEN}\x01", f"{TOKEN}ü", f"{TOKEN}\udcff"])
@pytest.mark.parametrize("arguments", [("node", "list"), ("exec", "310000000000004242", "true")])
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(
    command: CommandLine, host: StubHost, odd: str, arguments: tuple[str, ...]
) -> None:
    done = command.run(*arguments, KOHAKURIVER_TOKEN=odd)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"KOHAKURIVER_TOKEN" in done.stderr
    assert b"s3cr3t" not in done.stderr
    assert host.requests == []


def test_the_end_of_a_line_after_a_token_is_not_of_it(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [])
    done = command.run(
        "node",
        "list",
        KOHAKURIVER_TOKEN=f"{TOKEN}\r\n",
        KOHAKURIVER_HOST_FINGERPRINT=host.identity.fingerprint,
    )
    assert done.returncode == 0, done.stderr
    assert host.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host-fingerprint", TOKEN, "node", "list"),
        ("-H", f"http://user:{TOKEN}@host:8000", "node", "list"),
        ("-H", f"http://{TOKEN}@host:8000", "node", "list"),
        ("-H", TOKEN, "node", "list"),
        ("run", "-e", TOKEN, "true"),
        ("run", "-t", TOKEN, "true"),
        ("run", "--name", f"{TOKEN}/x", "true"),
        (TOKEN,),
    ],
)
def test_a_token_in_a_wrong_place_is_not_shown(command: CommandLine, arguments: tuple[str, ...]) -> None:
    done = command.run(*arguments, KOHAKURIVER_TOKEN=TOKEN)
    assert done.returncode in (2, 3, 5)
    assert b"s3cr3t" not in done.stderr + done.stdout


def test_a_refusal_that_quotes_the_token_is_shown_without_it(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", {"detail": f"not with Bearer {TOKEN}, nor with my-own-word"}, 403)
    done = command.run(
        "node",
        "list",
        KOHAKURIVER_TOKEN="my-own-word",
        KOHAKURIVER_HOST_FINGERPRINT=host.identity.fingerprint,
    )
    assert (done.returncode, done.stderr) == (4, b"Error: not with (hidden), nor with (hidden)\n")
