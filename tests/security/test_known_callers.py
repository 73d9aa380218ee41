"""What somebody with a good credential can take up of the host: memory, time, disk. One node, or one user."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState, Heartbeat, Registration, decode
from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode
from support.messages.raw_http import RawClient, ask, head

MACHINE = {"hostname": "evil", "url": "http://n:8001", "total_cores": 2, "total_ram_bytes": 1 << 30}
LARGE = 7 << 20
CROWD = 30


@asynccontextmanager
async def evil_node(harness: ApiHarness) -> AsyncIterator[tuple[SigningNode, str]]:
    """A node that is enrolled and has registered, and where the host can be reached."""
    node = await SigningNode(harness, "evil").enrol()
    assert (await node.send("POST", "/api/register", MACHINE)).status_code == 200
    async with harness.served() as address:
        yield node, address


def call_of(node: SigningNode, body: bytes) -> bytes:
    call = node.caller.call(node.name, node.keys, "POST", "/api/updates", body)
    fields = {"Authorization": call.credential, "Content_Length": len(call.content)}
    return head("POST", "/api/updates", **fields) + call.content


async def refused_of(address: str, requests: list[bytes], refused: int) -> list[RawClient]:
    """Send each but for its last byte, so that those which are taken in stay; so many must be refused."""
    clients = [await RawClient.open(address) for _ in requests]
    answered = Counter[int]()

    async def one(client: RawClient, request: bytes) -> None:
        await client.send(request[:-1])
        answered[await client.status()] += 1

    jobs = [asyncio.create_task(one(*pair)) for pair in zip(clients, requests, strict=True)]

    async def all_have_come() -> bool:
        return answered.total() >= refused

    try:
        await until(all_have_come)
        assert answered == {429: refused}
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    return clients


def test_a_node_has_a_share_of_the_host_and_no_more(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("good")
        async with evil_node(harness) as (node, address):
            clients = await refused_of(
                address, [call_of(node, bytes(LARGE)) for _ in range(CROWD)], CROWD - 2
            )
            small = await refused_of(address, [call_of(node, b"[]") for _ in range(CROWD)], CROWD - 6)
            # What it has taken up is its own.
            other = await SigningNode(harness, "other").enrol()
            assert (await other.send("POST", "/api/updates", [])).status_code == 200
            for client in (*clients, *small):
                client.close()

            async def has_its_share_again() -> bool:
                return (await node.send("POST", "/api/updates", [])).status_code == 200

            await until(has_its_share_again)

    play(tmp_path, scenario)


def test_a_user_has_a_share_of_the_host_and_no_more(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address:
            fields = {
                "Content_Type": "application/json",
                "Content_Length": LARGE,
                **harness.credential("ursula"),
            }
            request = head("POST", "/api/submit", **fields) + b" " * LARGE
            clients = await refused_of(address, [request] * CROWD, CROWD - (72 << 20) // LARGE)
            body = b'{"command": "true", "registry_image": "busybox"}'
            fields = {"Content_Type": "application/json", "Content_Length": len(body)}
            assert (
                await ask(address, head("POST", "/api/submit", **fields, **harness.credential("otto")) + body)
                == 202
            )
            for client in clients:
                client.close()

            async def has_its_share_again() -> bool:
                request = head("POST", "/api/submit", **fields, **harness.credential("ursula")) + body
                return await ask(address, request) == 202

            await until(has_its_share_again)

    play(tmp_path, scenario)


DEVICE = {f"field-{number}": [1.5] * 100 for number in range(200)}


@pytest.mark.parametrize(
    "devices",
    [[DEVICE], [{}] * 65, [{"a": "x" * 101}], [{"x" * 101: 1}], [{"a": [1] * 9}], [{"a": {"b": 1}}]],
    ids=["many fields", "many", "long text", "long name", "long list", "deep"],
)
def test_what_is_kept_of_a_nodes_devices_is_small(devices: list[Any]) -> None:
    for kind, rest in ((Heartbeat, {}), (Registration, MACHINE)):
        data = json.dumps({**rest, "vfio_gpus": devices}).encode()
        with pytest.raises(InvalidInput):
            decode(data, kind)
    fits = {f"f{number}": [1] * 8 for number in range(32)}
    assert decode(msgspec.json.encode({"vfio_gpus": [fits] * 64}), Heartbeat).vfio_gpus[63] == fits


def test_a_machine_is_described_in_a_mebibyte(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with evil_node(harness) as (node, _):
            numa = [{"id": 0, "cpus": [1] * 16_000, "memory_bytes": 1}] * 100
            answer = await node.send("POST", "/api/register", {**MACHINE, "numa_topology": numa})
            assert answer.status_code == 413

    play(tmp_path, scenario)


@pytest.mark.parametrize("states", [["running"], ["paused", "running"]], ids=["the same", "to and fro"])
def test_a_node_does_not_fill_the_store_with_the_history_of_its_own_task(
    states: list[str], tmp_path: Path
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with evil_node(harness) as (node, _):
            await node.send("PUT", "/api/heartbeat/evil", {"revision": 1})
            task = await harness.submit(targets=["evil"], registry_image="busybox")
            told = {"task_id": task, "attempt": 1, "message": "m" * 4000}
            for begin in range(1, 3000, 1000):
                reports = [
                    {**told, "status": states[number % len(states)], "revision": number}
                    for number in range(begin, begin + 1000)
                ]
                assert (await node.send("POST", "/api/updates", reports)).status_code == 200
            # They count all the same.
            live = harness.room.control.tasks.live(TaskId(int(task)))
            assert live is not None
            assert live.attempt.revision == 3000
            history = await harness.room.control.tasks.history(TaskId(int(task)))
            assert 3 <= len(history) <= 250
            end = {**told, "status": "completed", "revision": 3001, "message": ""}
            await node.send("POST", "/api/updates", [end])
            assert (await harness.room.control.tasks.history(TaskId(int(task))))[-1].kind == "completed"

    play(tmp_path, scenario)


def test_a_node_that_says_again_and_again_that_it_lost_its_journal_fills_no_store(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        room = harness.room
        await room.join("evil")
        task = await room.submit("evil")
        for _ in range(300):
            await room.accept_orders("evil")
            await room.report(task, TaskState.RUNNING, 1, node="evil", message="m" * 4000)
            lost = AttemptState(
                task_id=str(task), attempt=1, status=TaskState.RUNNING, revision=0, stray=True
            )
            await room.beat("evil", [lost])
        history = Counter(event.kind for event in await room.control.tasks.history(task))
        assert history["taken_up_again"] >= 1
        assert history.total() <= 250

    play(tmp_path, scenario)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)
