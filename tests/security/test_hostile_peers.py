"""What a peer that is another, or that is ours and means harm, can make the other end read and hold."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.api.http.body_reading import MAX_BODY_BYTES
from kohakuriver.host.dispatch.runner_link import Bounds, RunnerLink
from kohakuriver.host.dispatch.runner_streams import RunnerStreams
from kohakuriver.models.errors import HostRefused, KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.wire.messages import Heartbeat
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed_calls import receive_call
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential
from support.cluster.wiretap import Wiretap
from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode

HOST, NODE = Identity.generate(), Identity.generate()
KEYS = HOST.link_keys(NODE.public_key, Side.HOST)
MUCH = 256 << 20
LITTLE = 16 << 20
"""More than what lies in the buffers of a connection whose other end reads nothing."""


@dataclass
class Impostor:
    """Answers every call with these headers, and then with bytes for as long as they are taken."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 200
    proves: bool = False
    is_node: bool = True
    sent: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(self.headers)
            if self.proves:
                headers.update(self._proof(head))
            lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write(("\r\n".join([*lines, "", ""])).encode() + self.body[:1000])
            while self.sent < MUCH:
                await writer.drain()
                writer.write(bytes(1 << 16))
                self.sent += 1 << 16
        except OSError:
            pass
        finally:
            writer.close()
            self.ended.set()

    def _proof(self, head: str) -> dict[str, str]:
        """Of an answer with what `self.body` says, by one who has the keys."""
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
        side = Side.NODE if self.is_node else Side.HOST
        call = receive_call(side, KEYS, read_credential(fields["authorization"]), method, target)
        return {ANSWER_HEADER: call.seal(self.status, self.body, self.headers)[1]}


@contextlib.asynccontextmanager
async def answering(impostor: Impostor) -> AsyncIterator[int]:
    server = await asyncio.start_server(impostor.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def host_calls(port: int) -> None:
    link = RunnerLink(20)
    try:
        url = f"http://127.0.0.1:{port}/api/x"
        await link.request("n1", KEYS, "GET", url, bounds=Bounds(20, 1 << 20))
    finally:
        await link.close()


async def runner_beats(port: int) -> None:
    client = HostClient(f"http://127.0.0.1:{port}", "n1")
    client.trust(KEYS)
    try:
        await client.heartbeat(Heartbeat())
    finally:
        await client.close()


async def runner_asks(port: int) -> None:
    client = HostClient(f"http://127.0.0.1:{port}", "n1")
    try:
        await client.introduction()
    finally:
        await client.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


GZIP = {"Content-Encoding": "gzip"}
LONG = {"Content-Length": str(MUCH)}
CALLS = [host_calls, runner_beats]


@pytest.mark.parametrize("caller", [*CALLS, runner_asks])
@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize(
    "headers", [LONG, {}, LONG | GZIP, {ANSWER_HEADER: "0:" + "0" * 64 + ":" + "0" * 64}]
)
def test_an_answer_without_proof_is_not_read(
    caller: Callable[[int], Awaitable[None]], status: int, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        impostor = Impostor(headers, status=status, body=gzip.compress(bytes(1 << 20)))
        async with answering(impostor) as port:
            with pytest.raises(KohakuRiverError):
                await caller(port)
            await impostor.ended.wait()
            assert impostor.sent < LITTLE

    run(scenario())


@pytest.mark.parametrize("caller", CALLS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (LONG, b"{}"),  # longer than it was proven to be
        ({}, b"{}"),
        (LONG, bytes(24 << 20)),  # proven, and longer than such an answer may be
        (LONG | GZIP, gzip.compress(bytes(64 << 20))),
    ],
    ids=["announced", "endless", "large", "packed"],
)
def test_a_peer_that_proves_its_answer_cannot_make_it_larger_than_it_may_be(
    caller: Callable[[int], Awaitable[None]], headers: dict[str, str], body: bytes
) -> None:
    async def scenario() -> None:
        impostor = Impostor(headers, body, proves=True, is_node=caller is host_calls)
        async with answering(impostor) as port:
            with pytest.raises(Unavailable):
                await caller(port)
            await impostor.ended.wait()
            assert impostor.sent < LITTLE

    run(scenario())


def test_the_host_reads_no_body_of_a_stranger(tmp_path: Path) -> None:
    """Over a socket: the answer comes although the body never does."""

    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        async with harness.served() as address:
            good = node.caller.call("n1", node.keys, "POST", "/api/updates", b"[]" + bytes(1 << 20))
            for credential in (
                "",
                good.credential[:-1] + "g",
                good.credential.replace("n1", "n2"),
                "KohakuRiver n1:" + "a" * 24 + ":" + "0" * 64,
            ):
                reader, writer = await asyncio.open_connection(*address.split(":"))
                lines = ["POST /api/updates HTTP/1.1", "Host: h", f"Authorization: {credential}"]
                writer.write(("\r\n".join([*lines, f"Content-Length: {len(good.content)}", "", ""])).encode())
                async with asyncio.timeout(20):
                    assert b" 401 " in await reader.readline(), credential
                writer.close()

    play(tmp_path, scenario)


def test_what_is_too_large_for_the_host_is_refused_with_a_proof_and_unread(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        answer = await node.send("POST", "/api/updates", bytes(MAX_BODY_BYTES + 1))
        assert (answer.status_code, ANSWER_HEADER in answer.headers) == (413, True)
        assert "send less at once" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_every_refusal_of_the_host_to_a_node_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()

        async def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(harness.room.control.runners, "apply_reports", broken)
        for method, path, body, status in (
            ("POST", "/api/updates", b"[]", 500),
            ("POST", "/api/updates", b"{", 422),
            ("PUT", "/api/heartbeat/n2", b"{}", 403),
        ):
            answer = await node.send(method, path, body)
            assert (answer.status_code, ANSWER_HEADER in answer.headers) == (status, True), path
            assert answer.json()["detail"]

    play(tmp_path, scenario)


def test_a_runner_and_a_host_see_a_proven_413(tmp_path: Path) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        async with wire.open() as runner, wire.host() as host, runner.serving(wire.at_runner, wire.at_host):
            await wire.join(host, runner)
            control, link = host.harness.room.control, RunnerLink(20)
            keys, url = control.runners.link_keys("n1"), f"http://127.0.0.1:{wire.at_runner.port}/api/orders"
            assert keys is not None
            status, content, _ = await link.request("n1", keys, "POST", url, bytes(5 << 20))
            assert (status, b"bytes at most" in content) == (413, True)
            await link.close()
            with pytest.raises(HostRefused) as refused:
                await runner.report(
                    task_id="1", status="lost", attempt=1, revision=1, address="x" * (9 << 20)
                )
            assert refused.value.status == 413

    run(scenario())


def test_a_large_file_is_written_by_the_first_call_after_the_runner_began_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        content = os.urandom(18 << 20).hex()
        body = json.dumps({"path": "/f", "content": content}).encode()
        async with wire.open() as runner, wire.host() as host:
            async with runner.serving(wire.at_runner, wire.at_host):
                await wire.join(host, runner)
                await host.runners.call("n1", "GET", "/api/vps/snapshots/7")
            async with runner.serving(wire.at_runner, wire.at_host):
                # Straight to the runner, which refuses the first call without reading its body.
                wire.at_runner.port = int(wire.at_runner.target.rpartition(":")[2])
                await runner.register(wire.at_runner.port)
                await host.runners.call("n1", "POST", "/api/fs/7/write", body)
            written = hashlib.sha256((runner.root / "f").read_bytes()).digest()
            assert written == hashlib.sha256(content.encode()).digest()

    run(scenario())


def test_the_first_protocol_is_refused_with_a_sentence_and_shown_at_the_node(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        old = "KohakuRiver n1:" + "a" * 24 + ":" + "0" * 64
        answer = await node.send("POST", "/api/register", b"{}", header=old)
        assert answer.status_code == 401
        assert "older protocol 1" in answer.json()["detail"]
        assert "update KohakuRiver of" in answer.json()["detail"]
        (shown,) = (await harness.call("vera", "GET", "/api/nodes")).json()
        assert "older protocol 1" in shown["faults"][0]
        assert "not proven" in shown["faults"][0]
        # It is said by nobody who is known, so it changes nothing, and a node that is there is not blamed.
        stranger = await node.send("POST", "/api/register", b"{}", header=old.replace("n1", "n7"))
        assert stranger.status_code == 401
        assert [each["hostname"] for each in (await harness.call("vera", "GET", "/api/nodes")).json()] == [
            "n1"
        ]
        machine = {
            "hostname": "n1",
            "url": "http://10.0.0.1:8001",
            "total_cores": 2,
            "total_ram_bytes": 1 << 30,
        }
        assert (await node.send("POST", "/api/register", machine)).status_code == 200
        assert (await node.send("PUT", "/api/heartbeat/n1", {"revision": 1})).status_code == 200
        assert harness.room.control.nodes.snapshots()[0].faults == ()

    play(tmp_path, scenario)


def test_a_runner_says_that_its_host_is_of_the_first_protocol() -> None:
    async def scenario() -> None:
        async def old_host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            body = b'{"cluster_id": "c", "host_public_key": "%s"}' % HOST.public_key.encode()
            status = b"200 OK"
            if not head.startswith(b"GET /api/enrol "):
                status, body = b"401 X", b'{"detail": "this call needs the credential of an enrolled host"}'
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(old_host, "127.0.0.1", 0)
        client = HostClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "n1")
        client.trust(KEYS)
        try:
            with pytest.raises(Unauthenticated, match="needs the credential"):
                await client.heartbeat(Heartbeat())
            with pytest.raises(HostRefused, match=r"older protocol 1.*update KohakuRiver of the host"):
                await client.introduction()
        finally:
            await client.close()
            server.close()

    run(scenario())


def test_the_host_says_that_a_runner_may_be_of_another_version() -> None:
    async def scenario() -> None:
        impostor = Impostor(LONG, b"{}", 401)
        async with answering(impostor) as port:
            with pytest.raises(Unavailable, match="another version of KohakuRiver and is to be updated"):
                await host_calls(port)

    run(scenario())


@contextlib.asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request with this; yields the port, and the heads of the requests that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


async def host_opens(port: int) -> None:
    streams = RunnerStreams(lambda _node: (KEYS, ("127.0.0.1", f"http://n:{port}")))
    try:
        await streams.open("n1", "/ws/x")
    finally:
        await streams.close()


@pytest.mark.parametrize("caller", [*CALLS, runner_asks, host_opens])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_is_sent_on_to_another_address(caller: Callable[[int], Awaitable[None]], status: int) -> None:
    async def scenario() -> None:
        async with saying(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n") as (inside, asked):
            lines = (
                f"HTTP/1.1 {status} X",
                f"Location: http://127.0.0.1:{inside}/meta-data",
                "Content-Length: 0",
            )
            async with saying("\r\n".join([*lines, "", ""]).encode()) as (port, heads):
                with pytest.raises(KohakuRiverError):
                    await caller(port)
                assert (len(heads), asked) == (1, [])

    run(scenario())


def test_what_a_stranger_at_the_hosts_address_gave_is_not_shown_to_the_host() -> None:
    async def scenario() -> None:
        cookie = b"HTTP/1.1 401 X\r\nSet-Cookie: a=b; Path=/; Max-Age=9999\r\nContent-Length: 0\r\n\r\n"
        async with saying(cookie) as (port, heads):
            client = HostClient(f"http://localhost:{port}", "n1")
            client.trust(KEYS)
            for call in (client.introduction(), client.heartbeat(Heartbeat()), client.introduction()):
                with pytest.raises((Unauthenticated, Unavailable)):
                    await call
            await client.close()
        assert len(heads) == 3
        assert b"cookie" not in b"".join(heads).lower()

    run(scenario())
