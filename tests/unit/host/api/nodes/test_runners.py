"""Calls of runners: signed over the raw request, only for their own node, and answered with a signature."""

import json
from pathlib import Path

from kohakuriver.models.enums import TaskState
from kohakuriver.wire.messages import EnrolRequest
from kohakuriver.wire.trust import signing
from kohakuriver.wire.trust.identity import Identity
from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode

REGISTRATION = {"hostname": "n1", "url": "http://10.0.0.1:8001", "total_cores": 2, "total_ram_bytes": 1 << 30}


def test_a_registration_a_heartbeat_and_reports_of_a_signed_node_are_taken(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        registered = await node.send("POST", "/api/register", REGISTRATION)
        assert registered.status_code == 200
        assert signing.ANSWER_HEADER in registered.headers
        assert harness.room.control.nodes.snapshots()[0].row.address == "192.0.2.7"
        beat = await node.send("PUT", "/api/heartbeat/n1", {"cpu_percent": 12.5, "revision": 1})
        assert beat.json()["known"] is True
        assert (await harness.call("vera", "GET", "/api/nodes")).json()[0]["cpu_percent"] == 12.5
        task = await harness.submit(targets=["n1"], registry_image="busybox")
        await harness.room.accept_orders("n1")
        report = {"task_id": int(task), "status": "running", "attempt": 1, "revision": 1}
        assert (await node.send("POST", "/api/update", report)).json() == {"committed": 1}
        done = {**report, "task_id": task, "status": "completed", "revision": 2, "exit_code": 0}
        assert (await node.send("POST", "/api/updates", [report, done])).json() == {"committed": 2}
        assert await harness.room.state(int(task)) is TaskState.COMPLETED  # type: ignore[arg-type]

    play(tmp_path, scenario)


def test_a_request_that_was_changed_after_signing_is_refused(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        other = json.dumps({**REGISTRATION, "total_cores": 64}).encode()
        for changed in (
            {"body": other},
            {"target": "/api/update"},
            {"target": "/api/register?x=1"},
            {"header": "KohakuRiver n1:" + "a" * 24 + ":" + "0" * 64},
            {"header": f"KohakuRiver2 n1:{'e' * 22}:{'s' * 22}:1:0:{'0' * 64}:{'0' * 64}"},
            {"header": f"Bearer {harness.tokens['ada']}"},
            {"header": ""},
            {"header": f"KohakuRiver2 stranger:{'e' * 22}:{'s' * 22}:1:0:{'0' * 64}:{'0' * 64}"},
        ):
            answer = await node.send("POST", "/api/register", REGISTRATION, **changed)
            assert answer.status_code == 401, changed
        # A user's route takes no node's credential either.
        assert (await node.send("GET", "/api/nodes", b"")).status_code == 401

    play(tmp_path, scenario)


def test_a_node_cannot_speak_for_another(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await SigningNode(harness, "n1").enrol()
        other = await SigningNode(harness, "n2").enrol()
        assert (await other.send("POST", "/api/register", REGISTRATION)).status_code == 403
        assert (await other.send("PUT", "/api/heartbeat/n1", {})).status_code == 403
        await harness.room.register("n1")
        await harness.room.beat("n1")
        task = await harness.submit(targets=["n1"], registry_image="busybox")
        report = {"task_id": task, "status": "completed", "attempt": 1, "revision": 1, "exit_code": 0}
        await other.send("POST", "/api/updates", [report])
        assert await harness.room.state(int(task)) is TaskState.ASSIGNING  # type: ignore[arg-type]

    play(tmp_path, scenario)


def test_the_signature_is_checked_before_the_body_is_parsed(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        for body in (b"{", b"\xff", b"[]", b'{"hostname": 1}', b'{"hostname": "n1"}'):
            refused = await node.send("POST", "/api/register", body)
            assert refused.status_code == 422, body
            # The refusal is signed as well, so that the node knows who refuses.
            assert signing.ANSWER_HEADER in refused.headers
            forged = await node.send("POST", "/api/register", body, body=body + b" ")
            assert forged.status_code == 401, body

    play(tmp_path, scenario)


def test_the_host_shows_who_it_is_and_lets_a_runner_wait(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        shown = (await harness.call(None, "GET", "/api/enrol")).json()
        assert shown["host_public_key"] == harness.room.control.host_public_key
        assert shown["fingerprint"].startswith("SHA256:")
        for body in ({}, {"hostname": "../n", "public_key": "x"}, {"hostname": "n", "public_key": "x"}):
            assert (await harness.call(None, "POST", "/api/enrol", json=body)).status_code == 422
        request = EnrolRequest(hostname="n9", public_key=Identity.generate().public_key)
        assert (await harness.room.control.runners.enrol(request)).state == "pending"

    play(tmp_path, scenario)
