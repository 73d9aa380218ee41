"""What is done, and what is refused, leaves one audit line: no more, no less, and no secret in it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from kohakuriver.host.api.app import AUDITED, ENDPOINTS
from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.http.auditing import READING, Unaudited, check_audited
from kohakuriver.host.api.permissions import AnyoneCall
from kohakuriver.host.audit import MOST_IN_ALL, MOST_PER_SOURCE, AuditEvent, AuditLog, Outcome
from kohakuriver.logging_setup import AUDIT_LOGGER, set_up_logging
from kohakuriver.models.enums import LogLevel
from kohakuriver.wire.terminal_frames import SUBPROTOCOL
from support.cluster.terminal_path import running_task
from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode
from support.messages.channels import channel_pair

FIELDS = {"action", "actor", "token_id", "object", "detail", "outcome", "address", "reason"}
Line = dict[str, Any]


@asynccontextmanager
async def written() -> AsyncIterator[list[Line]]:
    """The audit lines that are written inside."""
    lines: list[Line] = []
    with structlog.testing.capture_logs() as log:
        yield lines
        lines += [dict(line) for line in log if line["event"] == "audit"]


def audited(lines: list[Line]) -> list[tuple[str, str, str, str]]:
    return [(line["action"], line["actor"], line["object"], line["outcome"]) for line in lines]


def test_every_route_that_changes_something_says_how_it_is_audited() -> None:
    for endpoint in ENDPOINTS:
        rule = AUDITED.get((endpoint.method, endpoint.path))
        if endpoint.method in READING:
            assert rule is None, f"{endpoint.path} changes nothing"
        else:
            assert rule, f"{endpoint.method} {endpoint.path}"
    unaudited = {key for key, rule in AUDITED.items() if isinstance(rule, Unaudited)}
    assert unaudited == {
        ("POST", "/api/prove"),
        ("POST", "/api/register"),
        ("PUT", "/api/heartbeat/{hostname}"),
        ("POST", "/api/update"),
        ("POST", "/api/updates"),
        ("POST", "/api/registry-credential"),
        ("WS", "/ws/fs/{task_id}/watch"),
    }
    actions = [rule for rule in AUDITED.values() if isinstance(rule, str)]
    assert len(set(actions)) == len(actions)


@pytest.mark.parametrize("kind", ["route", "socket"])
def test_an_app_with_a_route_that_forgot_it_is_not_built(kind: str) -> None:
    async def secret(call: AnyoneCall) -> None: ...

    async def socket(websocket: WebSocket, call: AnyoneCall) -> None: ...

    app = FastAPI()
    if kind == "route":
        endpoint = Endpoint("POST", "/api/secret", secret)  # type: ignore[arg-type]
        app.add_api_route(endpoint.path, endpoint.handler, methods=[endpoint.method])
    else:
        app.add_api_websocket_route("/ws/secret", socket)
    with pytest.raises(RuntimeError, match="audit action"):
        check_audited(app, AUDITED)


def test_what_people_do_is_written_once(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        ada = harness.auth.actor_of(harness.tokens["ada"])
        assert ada is not None
        async with written() as lines:
            task = await harness.submit("ursula", targets=["n1"])
            mounted = await harness.submit("otto", privileged=True)
            await harness.call("otto", "POST", f"/api/approve/{task}")
            await harness.call("ursula", "POST", f"/api/kill/{task}")
            await harness.call("otto", "POST", f"/api/reject/{mounted}")
            made = (await harness.call("ada", "POST", "/api/auth/tokens/create", json={"name": "x"})).json()
            await harness.call("ada", "DELETE", f"/api/auth/tokens/{made['id']}")
            join = (await harness.call("ada", "POST", "/api/nodes/join-tokens", json={})).json()
            await harness.call("ada", "DELETE", f"/api/nodes/join-tokens/{join['token_id']}")
            await harness.call("ada", "POST", "/api/nodes/n1/drain", json={})
            await harness.call("ada", "POST", "/api/nodes/n1/undrain")
            await harness.call("ada", "DELETE", "/api/nodes/n1", params={"force": True})
            await harness.call("otto", "GET", "/api/tasks")
        assert audited(lines) == [
            ("task.submit", "otto", mounted, "done"),
            ("task.approve", "otto", task, "done"),
            ("task.kill", "ursula", task, "done"),
            ("task.reject", "otto", mounted, "failed"),
            ("token.create", "ada", made["token_id"], "done"),
            ("token.delete", "ada", made["token_id"], "done"),
            ("join_token.create", "ada", join["token_id"], "done"),
            ("join_token.delete", "ada", join["token_id"], "done"),
            ("node.drain", "ada", "n1", "done"),
            ("node.undrain", "ada", "n1", "done"),
            ("node.remove", "ada", "n1", "done"),
        ]
        assert all(line.keys() >= FIELDS for line in lines)
        assert {line["address"] for line in lines} == {"192.0.2.7"}
        assert {line["token_id"] for line in lines if line["actor"] == "ada"} == {ada.token_id}
        text = repr(lines)
        assert not [
            token for token in (*harness.tokens.values(), made["token"], join["token"]) if token in text
        ]

    play(tmp_path, scenario)


def test_writes_and_deletes_of_files_say_where_and_not_what(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        harness.environments.files.root = tmp_path
        base = "/api/fs/container/base"
        async with written() as lines:
            body = {"path": "/a\x1b[2J\u202e", "content": "canary of the content"}
            answer = await harness.call("otto", "POST", f"{base}/write", json=body)
            assert answer.status_code == 200, answer.text
            body = {"source": "/a\x1b[2J\u202e", "destination": "/b"}
            await harness.call("otto", "POST", f"{base}/rename", json=body)
            await harness.call("otto", "DELETE", f"{base}/delete", params={"path": "/b"})
            await harness.call("otto", "GET", f"{base}/list", params={"path": "/"})
        assert [(line["action"], line["object"], line["detail"]) for line in lines] == [
            ("environment.file.write", "base", "/a\\x1b[2J\\u202e"),
            ("environment.file.rename", "base", "/a\\x1b[2J\\u202e to /b"),
            ("environment.file.delete", "base", "/b"),
        ]
        assert "canary" not in repr(lines)

    play(tmp_path, scenario)


def test_shells_and_commands_are_written_when_they_open_and_when_they_are_refused(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await running_task(harness, "ursula")
        async with harness.served() as address, written() as lines:
            for path in ("terminal", "exec"):
                harness.runners.channel, far = channel_pair()
                options: dict[str, Any] = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "proxy": None}
                url = f"ws://{address}/ws/task/{task}/{path}"
                async with connect(url, additional_headers=harness.credential("ursula"), **options):
                    await far.close()
                for who in ("ulf", "vera", None):
                    with pytest.raises(InvalidStatus):
                        await connect(url, additional_headers=harness.credential(who), **options)
        assert audited(lines) == [
            (action, who, str(task), outcome)
            for action in ("workload.shell", "workload.exec")
            for who, outcome in (
                ("ursula", "done"),
                ("ulf", "refused"),
                ("vera", "refused"),
                ("nobody", "refused"),
            )
        ]
        assert "belongs to somebody else" in lines[1]["reason"]

    play(tmp_path, scenario)


def test_refusals_are_written_on_every_route_and_bounded(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with written() as lines:
            await harness.call(None, "GET", "/api/tasks")
            await harness.call("vera", "POST", "/api/submit", json={"command": "true"})
            await harness.call("vera", "GET", "/api/nodes/join-tokens")
            wrong = {"Authorization": "Bearer kr_" + "x" * 43}
            await harness.call(None, "DELETE", "/api/nodes/n1", headers=wrong)
            await harness.call(None, "POST", "/api/register", content=b"{}")
        assert audited(lines) == [
            ("GET /api/tasks", "nobody", "", "refused"),
            ("task.submit", "vera", "", "refused"),
            ("GET /api/nodes/join-tokens", "vera", "", "refused"),
            ("node.remove", "nobody", "n1", "refused"),
            ("POST /api/register", "nobody", "", "refused"),
        ]
        assert "kr_xxx" not in repr(lines)
        async with written() as flood:
            for _ in range(MOST_PER_SOURCE * 2):
                await harness.call(None, "GET", "/api/tasks/my")
            await harness.call("ada", "DELETE", "/api/nodes/join-tokens/none")
        assert len([line for line in flood if line["actor"] == "nobody"]) < MOST_PER_SOURCE
        assert [line["action"] for line in flood][-1] == "join_token.delete", "and others are still written"

    play(tmp_path, scenario)


def test_a_flood_from_many_addresses_is_counted_and_told() -> None:
    now = [1000.0]

    async def scenario() -> list[Line]:
        audit = AuditLog(clock=lambda: now[0])
        with structlog.testing.capture_logs() as log:
            for number in range(MOST_PER_SOURCE * 2):
                audit.record(AuditEvent(action="x", address=f"2001:db8::{number:x}"), Outcome.FAILED)
            for number in range(MOST_IN_ALL * 3):
                event = AuditEvent(action="x", address=f"10.0.{number // 250}.{number % 250}")
                audit.record(event, Outcome.REFUSED)
                audit.record(AuditEvent(action="done", actor="ada"), Outcome.DONE)
            now[0] += 61
            audit.record(AuditEvent(action="later", address="10.0.0.1"), Outcome.REFUSED)
        return [dict(line) for line in log]

    lines = asyncio.run(scenario())
    actions = [line.get("action", line["event"]) for line in lines]
    assert actions.count("done") == MOST_IN_ALL * 3, "what was done is never left out"
    assert actions.count("x") == MOST_IN_ALL
    assert actions[-2:] == ["audit_left_out", "later"]
    (told,) = [line for line in lines if line["event"] == "audit_left_out"]
    assert told["lines"] == MOST_IN_ALL * 2 + MOST_PER_SOURCE * 2
    assert told["sources"][0] == "2001:db8::/64"


def test_strangers_of_many_addresses_do_not_hide_what_somebody_with_an_account_tries() -> None:
    """On the host's own machine one process has as many addresses as it likes (127.0.0.0/8)."""

    async def scenario() -> list[Line]:
        audit = AuditLog()
        with structlog.testing.capture_logs() as log:
            for number in range(MOST_IN_ALL * 2):
                event = AuditEvent(action="x", address=f"127.0.{number // 250}.{number % 250 + 1}")
                audit.record(event, Outcome.REFUSED)
            audit.record(AuditEvent(action="token.delete", actor="vera"), Outcome.REFUSED)
        audit.tell_left_out()
        return list(map(dict, log))

    lines = asyncio.run(scenario())
    assert [line["action"] for line in lines if line["event"] == "audit"][-1] == "token.delete"


def test_the_first_call_of_a_node_in_each_epoch_is_no_refusal_for_the_audit(tmp_path: Path) -> None:
    """A thousand nodes call anew every few minutes: those lines would fill the share of real refusals."""

    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        path = "/api/heartbeat/n1"
        async with written() as lines:
            refused, _ = await node.once("PUT", path, {})
            assert refused.status_code == 401
            await node.send("PUT", path, {})
            call = node.caller.call("n1", node.keys, "PUT", path, b"{}")
            sent = {"content": call.content, "headers": {"Authorization": call.credential}}
            await harness.call(None, "PUT", path, **sent)
            replayed = await harness.call(None, "PUT", path, **sent)
            assert replayed.status_code == 401
        assert [(line["action"], line["reason"]) for line in lines] == [
            ("PUT /api/heartbeat/{hostname}", "this call was made before; it is not taken again")
        ]

    play(tmp_path, scenario)


def test_by_what_a_workload_reaches_the_node_is_written(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        async with written() as lines:
            asked: dict[str, Any] = {"capabilities": ["SYS_ADMIN", "NET_RAW"]}
            await harness.submit("otto", targets=["n1"], **asked)
            await harness.submit("otto", targets=["n1"], privileged=True, additional_mounts=["/etc:/x"])
            await harness.submit("otto", targets=["n1"])
            for body in (asked, {"additional_mounts": ["/etc:/x"]}, {}):
                answer = await harness.call(
                    "otto", "POST", "/api/vps/create", json={"required_cores": 0, **body}
                )
                assert answer.status_code == 200, answer.text
        assert [(line["action"], line["detail"]) for line in lines] == [
            ("task.submit", "capabilities NET_RAW SYS_ADMIN"),
            ("task.submit", "privileged, mounts /etc:/x"),
            ("session.create", "capabilities NET_RAW SYS_ADMIN"),
            ("session.create", "mounts /etc:/x"),
            ("session.create", ""),
        ]

    play(tmp_path, scenario)


def test_audit_lines_are_written_at_every_level(tmp_path: Path) -> None:
    kept = (logging.getLogger().handlers[:], logging.getLogger().level)
    file = tmp_path / "host.log"
    try:
        set_up_logging(LogLevel.WARNING, str(file))
        AuditLog().record(AuditEvent(action="task.kill", actor="ada", object="7\nforged"), Outcome.DONE)
        structlog.get_logger().info("of no interest")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers, level = kept
        logging.getLogger().setLevel(level)
        logging.getLogger(AUDIT_LOGGER).setLevel(logging.NOTSET)
    (line,) = file.read_text().splitlines()
    assert '"event": "audit"' in line
    assert "7\\\\nforged" in line
