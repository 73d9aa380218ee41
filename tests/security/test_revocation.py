"""What a token opened ends with it: streams of logs and events, terminals. And join tokens end at once."""

import asyncio
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from kohakuriver.models.enums import Stream
from kohakuriver.wire.messages import EnrolRequest, encode
from kohakuriver.wire.terminal_frames import SUBPROTOCOL
from kohakuriver.wire.trust.enrolment import JoinToken, join_proof
from kohakuriver.wire.trust.identity import Identity
from support.cluster.terminal_path import running_task
from support.host.api import ApiHarness, play
from support.messages.channels import channel_pair

LONG_SECONDS = 10
"""Far below any timeout that would end the stream for another reason."""


async def revoke(harness: ApiHarness, who: str) -> None:
    tokens = (await harness.call(who, "GET", "/api/auth/tokens")).json()
    assert len(tokens) == 1
    assert (await harness.call(who, "DELETE", f"/api/auth/tokens/{tokens[0]['id']}")).status_code == 200


def test_a_followed_log_ends_with_its_token_and_others_go_on(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        harness.logs.streams[int(task), Stream.STDOUT] = b"first"
        async with harness.served() as address, httpx2.AsyncClient(timeout=LONG_SECONDS) as client:
            url = f"http://{address}/api/tasks/{task}/stdout?follow=true"
            async with (
                client.stream("GET", url, headers=harness.credential("vera")) as lost,
                client.stream("GET", url, headers=harness.credential("otto")) as kept,
            ):
                of_lost, of_kept = lost.aiter_raw(), kept.aiter_raw()
                assert (await anext(of_lost), await anext(of_kept)) == (b"first", b"first")
                await revoke(harness, "vera")
                with pytest.raises(httpx2.RemoteProtocolError):  # cut off: not an end that looks whole
                    await anext(of_lost)
                harness.logs.streams[int(task), Stream.STDOUT] += b"more"
                assert await anext(of_kept) == b"more"
            assert (await client.get(url, headers=harness.credential("vera"))).status_code == 401

    play(tmp_path, scenario)


def test_a_stream_of_events_ends_with_its_token(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address, httpx2.AsyncClient(timeout=LONG_SECONDS) as client:
            url = f"http://{address}/api/events"
            async with client.stream("GET", url, headers=harness.credential("vera")) as answer:
                pieces = answer.aiter_raw()
                assert b"event: ready" in await anext(pieces)
                await revoke(harness, "vera")
                rest = b"".join([piece async for piece in pieces])
                assert b"event: end" in rest
                assert b"not valid" in rest

    play(tmp_path, scenario)


def test_a_terminal_ends_with_its_token_and_its_shell_is_closed(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address, asyncio.timeout(LONG_SECONDS):
            url = f"ws://{address}/ws/docker/host/containers/base/terminal"
            credential = harness.credential("otto")
            async with connect(url, additional_headers=credential, proxy=None) as socket:
                await socket.send('{"type": "input", "data": "ls\\n"}')
                await revoke(harness, "otto")
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
                assert "not valid" in closed.value.rcvd.reason
            await harness.environments.shell.closed.wait()

    play(tmp_path, scenario)


@pytest.mark.parametrize("kind", ["terminal", "exec"])
def test_what_runs_in_a_workload_for_a_token_ends_with_it(tmp_path: Path, kind: str) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task_id = await running_task(harness, "ursula")
        harness.runners.channel, runner = channel_pair()
        async with harness.served() as address, asyncio.timeout(LONG_SECONDS):
            url = f"ws://{address}/ws/task/{task_id}/{kind}"
            credential = harness.credential("ursula")
            async with connect(
                url, additional_headers=credential, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None
            ) as socket:
                await socket.send(b"\0typed")
                assert await runner.receive() == b"\0typed"
                await revoke(harness, "ursula")
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
            assert await runner.receive() is None

    play(tmp_path, scenario)


def test_a_token_of_somebody_else_cannot_be_ended(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        tokens = (await harness.call("vera", "GET", "/api/auth/tokens")).json()
        answer = await harness.call("ada", "DELETE", f"/api/auth/tokens/{tokens[0]['id']}")
        assert answer.status_code == 404
        assert (await harness.call("vera", "GET", "/api/auth/me")).status_code == 200

    play(tmp_path, scenario)


def test_a_deleted_join_token_lets_nobody_in_from_that_moment(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        made = (await harness.call("ada", "POST", "/api/nodes/join-tokens", json={})).json()
        token = JoinToken.parse(made["token"])
        assert (
            await harness.call("ada", "DELETE", f"/api/nodes/join-tokens/{token.token_id}")
        ).status_code == 200
        introduction = (await harness.call(None, "GET", "/api/enrol")).json()
        key = Identity.generate().public_key
        request = EnrolRequest(
            hostname="late",
            public_key=key,
            join_token_id=token.token_id,
            join_proof=join_proof(token.secret, "late", key, introduction["host_public_key"]),
        )
        answer = await harness.call(None, "POST", "/api/enrol", content=encode(request))
        assert answer.status_code == 403
        assert (await harness.call("ada", "GET", "/api/nodes")).json() == []

    play(tmp_path, scenario)
