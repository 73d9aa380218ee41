"""The lab's relay: what it does to genuine messages, and that they stay genuine."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.wire.messages import Heartbeat
from kohakuriver.wire.trust.identity import Identity, Side
from support.lab.relay import Disturbance, Relay, disturb
from support.runner.scripted_host import ScriptedHost, free_port, serving

DEADLINE_SECONDS = 20

Scenario = Callable[[ScriptedHost, HostClient, Path], Awaitable[None]]


def play(folder: Path, scenario: Scenario) -> None:
    """Run it with a host and a client that reaches it only by the relay."""

    async def bounded() -> None:
        host, port, relay_port = ScriptedHost(), free_port(), free_port()
        node = Identity.generate()
        host.keys_of["n1"] = node.public_key
        client = HostClient(f"http://127.0.0.1:{relay_port}", "n1")
        client.trust(node.link_keys(host.public_key, Side.NODE))
        control = folder / "relay.json"
        relay = asyncio.ensure_future(
            Relay(control).serve([(f"127.0.0.1:{relay_port}", f"127.0.0.1:{port}")])
        )
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), serving(host, port):
                await until(lambda: _listens(relay_port))
                await scenario(host, client, control)
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
            await client.close()

    asyncio.run(bounded())


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.005)


def _beat(revision: int) -> Heartbeat:
    return Heartbeat(revision=revision)


async def _played_again(host: ScriptedHost, times: int) -> None:
    async def there() -> bool:
        return host.played_again == times

    await until(there)


def test_without_a_request_messages_pass_once_and_answers_come_back(tmp_path: Path) -> None:
    async def scenario(host: ScriptedHost, client: HostClient, control: Path) -> None:
        for revision in (1, 2, 3):
            assert (await client.heartbeat(_beat(revision))).known
        assert [beat.revision for beat in host.beats] == [1, 2, 3]

    play(tmp_path, scenario)


def test_a_doubled_message_reaches_the_peer_twice_and_is_taken_once(tmp_path: Path) -> None:
    async def scenario(host: ScriptedHost, client: HostClient, control: Path) -> None:
        await client.heartbeat(_beat(1))
        disturb(control, duplicate_percent=100, late_ms=10)
        await client.heartbeat(_beat(2))
        await _played_again(host, 1)
        assert [beat.revision for beat in host.beats] == [1, 2]

    play(tmp_path, scenario)


def test_an_old_message_is_sent_again(tmp_path: Path) -> None:
    async def scenario(host: ScriptedHost, client: HostClient, control: Path) -> None:
        await client.heartbeat(_beat(1))
        await client.heartbeat(_beat(2))
        disturb(control, replay_percent=100)
        for revision in range(3, 9):
            await client.heartbeat(_beat(revision))
        # The first of those that were kept is the one that asked for the epoch.
        assert host.played_again > 0
        assert [beat.revision for beat in host.beats] == list(range(1, 9))

    play(tmp_path, scenario)


def test_a_swallowed_answer_was_delivered_and_the_sender_does_not_know(tmp_path: Path) -> None:
    async def scenario(host: ScriptedHost, client: HostClient, control: Path) -> None:
        await client.heartbeat(_beat(1))
        disturb(control, lose_answer_percent=100)
        with pytest.raises(Unavailable):
            await client.heartbeat(_beat(2))
        assert [beat.revision for beat in host.beats] == [1, 2]
        disturb(control)
        await client.heartbeat(_beat(3))

    play(tmp_path, scenario)


def test_a_host_that_is_unreachable_is_unreachable_behind_the_relay_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        relay = asyncio.ensure_future(
            Relay(tmp_path / "relay.json").serve([(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")])
        )
        client = HostClient(f"http://127.0.0.1:{port}", "n1")
        try:
            await until(lambda: _listens(port))
            with pytest.raises(Unavailable):
                await client.introduction()
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
            await client.close()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_SECONDS))


def test_a_misspelt_request_is_refused(tmp_path: Path) -> None:
    (tmp_path / "relay.json").write_text(json.dumps({"duplicates": 5}))
    with pytest.raises(TypeError):
        Disturbance.read(tmp_path / "relay.json")
