"""What somebody without a credential can take up of either daemon: its time, memory, connections, log."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.front_door import ConnectionLimits
from support.host.api import ApiHarness, play
from support.messages.front_doors import PIECE, Honest, as_the_daemons_do, both, on_daemon
from support.messages.raw_http import RawClient, ask, head, serving, until

IMPATIENT = ConnectionLimits(head_seconds=0.2, body_grace_seconds=0.2)


@both
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ", PIECE),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long", PIECE),
        (b"GET /", PIECE),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-Many: 1\r\n" * 6000),
        (b"", b"\r\n" * 32768),
    ],
    ids=["value", "name", "target", "many", "blank lines"],
)
def test_headers_without_end_are_refused_while_honest_requests_are_answered(
    tmp_path: Path, kind: str, begin: bytes, piece: bytes
) -> None:
    async def attack(address: str, honest: Honest) -> None:
        client = await RawClient.open(address)
        await client.send(begin)
        answered = asyncio.create_task(client.status())
        await client.flood(piece, answered)
        assert await answered in (400, 431)
        assert await ask(address, honest()) == 200
        client.close()

    on_daemon(kind, tmp_path, attack)


@both
def test_a_head_that_is_too_long_is_told_so(tmp_path: Path, kind: str) -> None:
    async def attack(address: str, honest: Honest) -> None:
        for request in (
            head("GET", "/healthz", X="a" * 40_000),
            head("GET", "/" + "a" * 40_000),
            head("GET", "/healthz", **{f"X-{number}": "1" for number in range(150)}),
            head("GET", "/healthz", Connection="upgrade", Upgrade="websocket", X="a" * 9000),
        ):
            assert await ask(address, request) == 431
        assert await ask(address, honest()) == 200

    on_daemon(kind, tmp_path, attack)


@pytest.mark.parametrize("begin", [b"0\r\nX-Long: ", b"5;x="], ids=["trailer", "chunk extension"])
def test_what_stands_between_pieces_of_a_body_has_an_end(tmp_path: Path, begin: bytes) -> None:
    async def attack(address: str, honest: Honest) -> None:
        client = await RawClient.open(address)
        await client.send(head("POST", "/api/enrol", Transfer_Encoding="chunked") + begin)
        answered = asyncio.create_task(client.status())
        await client.flood(PIECE, answered)
        assert await answered in (400, 431)
        assert await ask(address, honest()) == 200
        client.close()

    on_daemon("host", tmp_path, attack)


@both
@pytest.mark.parametrize(
    "begin", [b"G", b"GET /healthz HTTP/1.1\r\nX: ", b""], ids=["first byte", "headers", "nothing"]
)
def test_half_requests_do_not_stay(tmp_path: Path, kind: str, begin: bytes) -> None:
    async def attack(address: str, honest: Honest) -> None:
        clients = [await RawClient.open(address) for _ in range(100)]
        for client in clients:
            await client.send(begin)
        assert await ask(address, honest()) == 200
        for client in clients:
            assert await client.status() == (408 if begin else 0)
            await client.ended()
            client.close()

    on_daemon(kind, tmp_path, attack, IMPATIENT)


def test_an_idle_connection_may_be_used_again_after_the_time_for_headers(tmp_path: Path) -> None:
    async def attack(address: str, honest: Honest) -> None:
        kept, half = await RawClient.open(address), await RawClient.open(address)
        await kept.send(honest())
        assert await kept.status() == 200
        await half.send(b"GET / HT")
        assert await half.status() == 408
        await kept.send(honest())
        assert await kept.status() == 200

    on_daemon("host", tmp_path, attack, IMPATIENT)


@pytest.mark.parametrize("size", [{"Content_Length": 8 << 20}, {"Transfer_Encoding": "chunked"}])
def test_large_enrolments_are_refused_before_they_are_whole(tmp_path: Path, size: dict[str, Any]) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, server):
            clients = [await RawClient.open(address) for _ in range(60)]
            body = b"10000\r\n" + PIECE + b"\r\n" if "Transfer_Encoding" in size else PIECE
            for client in clients:
                await client.send(head("POST", "/api/enrol", **size) + body)
            for client in clients:
                assert await client.status() == 413
            assert server.connections.held_bytes == 0
            assert await ask(address, head("GET", "/healthz")) == 200
            for client in clients:
                client.close()

    play(tmp_path, scenario)


def test_a_strangers_body_must_get_on_and_an_honest_slow_one_may_take_its_time(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app, IMPATIENT) as (address, _):
            body = b'{"command": "true"}'
            length = {"Content_Length": len(body), "Content_Type": "application/json"}
            honest = await RawClient.open(address)
            await honest.send(
                head("POST", "/api/submit", **length, **harness.credential("ursula")) + body[:1]
            )
            stranger = await RawClient.open(address)
            await stranger.send(head("POST", "/api/enrol", **length) + body[:1])
            assert await stranger.status() == 408
            await honest.send(body[1:])
            assert await honest.status() == 202

    play(tmp_path, scenario)


def test_a_body_that_goes_on_after_its_answer_does_not_keep_the_connection(tmp_path: Path) -> None:
    async def attack(address: str, honest: Honest) -> None:
        client = await RawClient.open(address)
        await client.send(head("POST", "/api/submit", Content_Length=1 << 40))
        assert await client.status() == 401
        await until(lambda: _gone(client))
        assert await ask(address, honest()) == 200

    async def _gone(client: RawClient) -> bool:
        return not await client.send(b"x" * 1000)

    on_daemon("host", tmp_path, attack, IMPATIENT)


@both
def test_too_many_strangers_make_room_and_those_with_a_credential_stay(tmp_path: Path, kind: str) -> None:
    limits = ConnectionLimits(stranger_connections_per_address=20, stranger_connections=30)

    async def attack(address: str, honest: Honest) -> None:
        known = await RawClient.open(address)
        await known.send(honest())
        assert await known.status() == 200
        crowd = [await RawClient.open(address) for _ in range(60)]
        for client in crowd[:40]:
            assert await client.status() in (503, 0)
        for _ in range(3):
            assert await ask(address, honest()) == 200
        await known.send(honest())
        assert await known.status() == 200
        for client in crowd:
            client.close()

    on_daemon(kind, tmp_path, attack, limits)


def test_one_caller_does_not_take_the_connections_of_all(tmp_path: Path) -> None:
    limits = ConnectionLimits(connections_per_caller=20)

    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app, limits) as (address, server):
            request = head("GET", "/api/nodes", **harness.credential("vera"))
            other = await RawClient.open(address)
            await other.send(head("GET", "/api/nodes", **harness.credential("ada")))
            assert await other.status() == 200
            crowd = [await RawClient.open(address) for _ in range(60)]
            for client in crowd:
                await client.send(request)
                assert await client.status() == 200
            for client in crowd[:40]:
                await client.ended()
            for client in (crowd[-1], other):
                await client.send(request)
                assert await client.status() == 200
            assert len(server.connections) <= 21
            for client in (*crowd, other):
                client.close()
            await until(lambda: len(server.connections) == 0)
            assert server.connections.callers == 0

    play(tmp_path, scenario)


def test_heads_that_are_not_whole_count_as_a_strangers_bytes() -> None:
    limits = ConnectionLimits(stranger_bytes_per_address=100_000)

    async def attack() -> None:
        async with serving(_hoarder, limits) as (address, server):
            clients = [await RawClient.open(address) for _ in range(20)]
            for client in clients:
                await client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
            assert await clients[-1].status() == 429
            assert server.connections.held_bytes <= limits.stranger_bytes_per_address
            for client in clients:
                client.close()
            await until(lambda: server.connections.held_bytes == 0)

    as_the_daemons_do(attack())


def test_requests_that_are_piled_up_on_one_connection_end_it(tmp_path: Path) -> None:
    async def attack(address: str, honest: Honest) -> None:
        client = await RawClient.open(address)
        await client.send(head("GET", "/healthz") * 2000)
        await client.ended()
        assert await ask(address, honest()) == 200

    on_daemon("host", tmp_path, attack)


async def _hoarder(scope: Any, receive: Any, send: Any) -> None:
    """An application that keeps whatever it is sent, and asks nobody who they are."""
    while (await receive()).get("more_body"):
        pass


def test_bytes_without_a_credential_are_counted_by_address_and_given_back() -> None:
    limits = ConnectionLimits(stranger_bytes_per_address=1 << 20)

    async def attack() -> None:
        async with serving(_hoarder, limits) as (address, server):
            clients = [await RawClient.open(address) for _ in range(40)]
            for client in clients:
                await client.send(head("POST", "/", Content_Length=8 << 20) + PIECE)
            assert 429 in [await client.status() for client in clients[-1:]]
            assert server.connections.held_bytes <= limits.stranger_bytes_per_address
            for client in clients:
                client.close()
            await until(lambda: server.connections.held_bytes == 0)
            await until(lambda: server.connections.strangers == 0)

    as_the_daemons_do(attack())
