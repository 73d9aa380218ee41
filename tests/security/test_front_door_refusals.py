"""What the front door refuses is refused before it costs anything, and is told and logged in measure."""

import logging
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kohakuriver.host.api.permissions import declared_permissions
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import Caller
from support.host.api import ApiHarness, play
from support.messages.front_doors import (
    PIECE,
    Honest,
    OurHost,
    as_the_daemons_do,
    both,
    on_daemon,
    runner_app,
)
from support.messages.raw_http import RawClient, ask, head, serving


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
        app = runner_app()
        our_host = await OurHost.known_to(app)
        async with serving(app) as (address, _):
            strangers = [await RawClient.open(address) for _ in range(4)]
            for client in strangers:
                await client.send(_forged(Side.HOST, "/api/fs/7/write", 50 << 20) + PIECE)
            for client in strangers:
                assert await client.status() == 401
            request = our_host.request("POST", "/api/fs/7/write", b'{"path": "/x", "content": ""}')
            assert await ask(address, request) == 503  # it came to the engine, which is down

    as_the_daemons_do(attack())


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


def _complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Whether lines below a warning come here depends on what ran in this process before."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


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
    assert not _complaints(caplog)


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
    assert not _complaints(caplog)
