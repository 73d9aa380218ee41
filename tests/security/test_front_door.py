"""What somebody without a credential can take up of either daemon: its time, memory, connections, log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from kohakuriver.front_door import ConnectionLimits
from kohakuriver.host.api.permissions import declared_permissions
from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import Caller
from support.host.api import ApiHarness, api_harness, play
from support.messages.asgi_call import call
from support.messages.raw_http import RawClient, ask, head, serving, until

KEYS = Identity.generate().link_keys(Identity.generate().public_key, Side.HOST)
PIECE = b"a" * 65536
Honest = Callable[[], bytes]
IMPATIENT = ConnectionLimits(head_seconds=0.2, body_grace_seconds=0.2)


def _runner() -> Any:
    async def list_images() -> list[str]:
        return []

    def no_engine(_task_id: object) -> Any:
        raise Unavailable("there is no engine")

    nothing: dict[str, Any] = dict.fromkeys(
        ("take_orders", "sync_environment", "remove_environment", "vps", "leftovers")
    )
    return runner_api(
        RunnerServices(
            node="n1",
            keys=lambda: KEYS,
            list_images=list_images,
            faults=list,
            local_temp_dir=Path("/nonexistent"),
            engine_of=no_engine,
            **nothing,
        )
    )


class _OurHost:
    """Makes calls to a runner, each good for being sent once."""

    def __init__(self) -> None:
        self._caller = Caller(Side.HOST)

    @classmethod
    async def known_to(cls, app: Any) -> "_OurHost":
        """Learn the runner's epoch, as a host does by its first call."""
        host = cls()
        first = host._caller.call("n1", KEYS, "GET", "/healthz")
        answer = await call(app, "GET", "/healthz", {"Authorization": first.credential}, first.content)
        proven = host._caller.prove(first, KEYS, answer.status, answer.headers, 1 << 20)
        assert host._caller.must_call_again(first, proven)
        return host

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        sealed = self._caller.call("n1", KEYS, method, target, body)
        length = len(sealed.content)
        return head(method, target, Authorization=sealed.credential, Content_Length=length) + sealed.content


@contextlib.asynccontextmanager
async def daemon(
    kind: str, folder: Path, limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[str, Honest]]:
    """Serve a host or a runner; yields its address, and what makes an honest request there."""
    if kind == "runner":
        app = _runner()
        our_host = await _OurHost.known_to(app)
        async with serving(app, limits) as (address, _):
            yield address, partial(our_host.request, "GET", "/api/docker/images")
        return
    async with api_harness(folder) as harness, serving(harness.app, limits) as (address, _):
        yield address, partial(head, "GET", "/api/nodes", **harness.credential("vera"))


def on_daemon(
    kind: str, folder: Path, attack: Callable[[str, Honest], Any], limits: ConnectionLimits | None = None
) -> None:
    async def run() -> None:
        async with daemon(kind, folder, limits) as (address, honest):
            await attack(address, honest)

    _as_the_daemons_do(run())


def _as_the_daemons_do(attack: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attack)


both = pytest.mark.parametrize("kind", ["host", "runner"])


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

    _as_the_daemons_do(attack())


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

    _as_the_daemons_do(attack())


@both
@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity, gzip", "br"])
def test_coded_bodies_are_refused_and_never_decoded(tmp_path: Path, kind: str, coding: str) -> None:
    async def attack(address: str, honest: Honest) -> None:
        for name in ("Content-Encoding", "content-encoding"):
            request = head("POST", "/api/enrol", **{name: coding, "Content_Length": 0})
            assert await ask(address, request) == 415
        request = head("POST", "/api/enrol", Transfer_Encoding="gzip, chunked")
        assert await ask(address, request) in (415, 400)
        assert await ask(address, honest()) == 200

    on_daemon(kind, tmp_path, attack)


def test_every_route_refuses_a_stranger_before_it_reads_a_body(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, _):
            for method, path, permission in declared_permissions(harness.app):
                if method == "WS" or permission == "anony":
                    continue
                target = path.replace("{task_id}", "7").replace("{", "").replace("}", "")
                for credential in ({}, {"Authorization": "Bearer kr_" + "x" * 43}):
                    request = head(method, target, Content_Length=100_000, **credential)
                    assert await ask(address, request) == 401, f"{method} {path}"

    play(tmp_path, scenario)


def test_strangers_do_not_hold_up_what_the_host_writes_on_a_node() -> None:
    async def attack() -> None:
        app = _runner()
        our_host = await _OurHost.known_to(app)
        async with serving(app) as (address, _):
            strangers = [await RawClient.open(address) for _ in range(4)]
            for client in strangers:
                await client.send(_forged(Side.HOST, "/api/fs/7/write", 50 << 20) + PIECE)
            for client in strangers:
                assert await client.status() == 401
            request = our_host.request("POST", "/api/fs/7/write", b'{"path": "/x", "content": ""}')
            assert await ask(address, request) == 503  # it came to the engine, which is unreachable

    _as_the_daemons_do(attack())


def test_a_forged_signature_is_refused_by_the_host_before_the_body_is_read(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        async with serving(harness.app) as (address, _):
            client = await RawClient.open(address)
            await client.send(_forged(Side.NODE, "/api/updates", 8 << 20) + PIECE)
            assert await client.status() == 401
            client.close()

    play(tmp_path, scenario)


def _forged(side: Side, target: str, length: int) -> bytes:
    """The head of a call that names n1, by somebody who does not have its keys."""
    sealed = Caller(side).call("n1", LinkKeys(bytes(32), bytes(32)), "POST", target)
    return head("POST", target, Authorization=sealed.credential, Content_Length=length)


@pytest.mark.parametrize("depth", [200, 3000, 500_000])
def test_nested_json_of_a_stranger_is_input_that_does_not_fit(
    tmp_path: Path, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = (b"[" * depth, b'{"x":' * depth, b'{"x": ' + b"[" * depth + b"]" * depth + b"}")

    async def scenario(harness: ApiHarness) -> None:
        for body in bodies:
            with capture_logs() as logged:
                answer = await harness.call(None, "POST", "/api/enrol", content=body)
            assert answer.status_code in (413, 422), answer.text
            assert not [line for line in logged if "exc_info" in line]

    play(tmp_path, scenario)
    assert not caplog.records


def test_what_nobody_expected_is_logged_once_for_all_who_cause_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def scenario(harness: ApiHarness) -> None:
        monkeypatch.setattr(harness.room.control.runners, "enrol", fail)
        body = b'{"hostname": "n1", "public_key": "x"}'
        async with serving(harness.app) as (address, _):
            with capture_logs() as logged:
                for _ in range(5):
                    request = head("POST", "/api/enrol", Content_Length=len(body)) + body
                    assert await ask(address, request) == 500
            assert len([line for line in logged if line.get("exc_info")]) == 1
        assert not [record for record in caplog.records if record.exc_info]

    play(tmp_path, scenario)


@both
def test_refusals_of_one_address_are_logged_once_in_a_while(tmp_path: Path, kind: str) -> None:
    async def attack(address: str, honest: Honest) -> None:
        with capture_logs() as logged:
            for _ in range(20):
                assert await ask(address, b"\x16\x03\x01nonsense\r\n\r\n") == 400
                assert await ask(address, head("GET", "/", X="a" * 40_000)) == 431
        assert sorted(line["event"] for line in logged) == ["request_refused"] * 2

    on_daemon(kind, tmp_path, attack)


def test_refused_websockets_leave_no_errors_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    async def attack(address: str, honest: Honest) -> None:
        assert await ask(address, head("GET", "/ws/task/7/terminal", **upgrade)) == 401
        assert await ask(address, honest()) == 200

    on_daemon("host", tmp_path, attack)
    assert not caplog.records
