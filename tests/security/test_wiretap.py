"""Somebody between a host and its runner who records all: what it reads, and what it can do with that."""

import asyncio
import base64
import gzip
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.output.places import OutputPlace
from support.cluster.wiretap import DEADLINE_SECONDS, Spoken, TappedHost, TappedRunner, Wiretap, until

VARIABLE, CONTENT, OUTPUT = "canary-of-a-variable", "canary-of-a-file", b"canary-of-output"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 3):
            await scenario

    asyncio.run(bounded())


def _write(content: str) -> bytes:
    return b'{"path": "/f", "content": "%s"}' % content.encode()


async def live(wire: Wiretap, host: TappedHost, runner: TappedRunner) -> str:
    """A bit of everything that host and runner say to each other; returns the id of a task that has ended."""
    await wire.join(host, runner)
    task = await host.harness.submit(targets=["n1"], env_vars={"SECRET": VARIABLE})
    body = {"target_hostname": "n1", "ssh_key_mode": "generate"}
    made = await host.harness.call("otto", "POST", "/api/vps/create", json=body)
    assert made.status_code < 300, made.text
    await until(lambda: len(runner.orders) == 2)
    report: dict[str, Any] = {"task_id": task, "attempt": 1}
    await runner.report(**report, status=TaskState.RUNNING, revision=1)
    await host.harness.call("otto", "POST", f"/api/kill/{task}")
    await until(lambda: len(runner.orders) == 3)
    await runner.report(**report, status=TaskState.KILLED, revision=2)
    logs = runner.folder / "logs" / "7"
    logs.mkdir(parents=True)
    (logs / "stdout.log").write_bytes(OUTPUT)
    place = OutputPlace(TaskId(7), 1, Stream.STDOUT)
    assert await host.dispatcher.fetch_log("n1", place, 0, 100) == (OUTPUT, len(OUTPUT))
    assert await host.dispatcher.fetch_log("n1", place, 2, 3) == (OUTPUT[2:5], len(OUTPUT))
    ask = host.runners.call
    await ask("n1", "POST", "/api/fs/7/write", _write(CONTENT))
    assert CONTENT.encode() in await ask("n1", "GET", "/api/fs/7/read?path=/f")
    await ask("n1", "GET", "/api/vps/snapshots/7")
    await ask("n1", "DELETE", "/api/vps/snapshots/7/100")
    await ask("n1", "DELETE", "/api/fs/7/delete?path=/f")
    return task


def sealed_to_host(wire: Wiretap) -> list[Spoken]:
    return [spoken for spoken in wire.at_host.spoken if not spoken.path.startswith("/api/enrol")]


def kinds(spoken: list[Spoken]) -> set[str]:
    return {f"{each.method} {each.path.split('?')[0]}" for each in spoken if each.status == 200}


def test_nothing_secret_is_in_clear(tmp_path: Path) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        async with wire.open() as runner, wire.host() as host, runner.serving(wire.at_runner, wire.at_host):
            await live(wire, host, runner)
            heard = b"\n".join(each.everything() for each in wire.at_runner.spoken + wire.at_host.spoken)
            assert len(heard) > 2000
            host_key = next(order.session.host_key for order in runner.orders if order.session)
            secrets = [VARIABLE, CONTENT, OUTPUT.decode(), *host_key.split("\n")[1:-2]]
            assert len(secrets) > 4
            for secret in secrets:
                assert secret.encode() not in heard
                assert base64.b64encode(secret.encode()).rstrip(b"=")[:-1] not in heard

    run(scenario())


async def play_all(wire: Wiretap, runner: TappedRunner) -> None:
    """Send everything again, to both ends. Nothing is taken, and what is answered tells nothing."""
    to_runner, to_host = list(wire.at_runner.spoken), sealed_to_host(wire)
    for tap, recorded in ((wire.at_runner, to_runner), (wire.at_host, to_host)):
        for call in recorded:
            again = await tap.play(call)
            assert again.status == 401, f"{call.method} {call.path} was taken again"
            for secret in (VARIABLE.encode(), CONTENT.encode(), OUTPUT):
                assert secret not in again.everything()


def test_nothing_recorded_does_or_reads_anything_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        async with wire.open() as runner, wire.host() as host, runner.serving(wire.at_runner, wire.at_host):
            task = await live(wire, host, runner)
            assert kinds(wire.at_runner.spoken) == {
                "POST /api/orders",
                "GET /api/logs/7/stdout",
                "POST /api/fs/7/write",
                "GET /api/fs/7/read",
                "DELETE /api/fs/7/delete",
                "GET /api/vps/snapshots/7",
                "DELETE /api/vps/snapshots/7/100",
            }
            assert kinds(sealed_to_host(wire)) == {
                "POST /api/register",
                "PUT /api/heartbeat/n1",
                "POST /api/updates",
            }
            # Newer data, at the places that the recorded calls are about.
            (runner.root / "f").write_text("newer")
            runner.service.snapshots = [100, 300]
            orders, revision = len(runner.orders), host.harness.room.control.figures.revision
            await play_all(wire, runner)
            assert (runner.root / "f").read_text() == "newer"
            assert runner.service.snapshots == [100, 300]
            assert len(runner.orders) == orders
            assert host.harness.room.control.figures.revision == revision
            assert await host.harness.room.state(TaskId(int(task))) is TaskState.KILLED
            # Who is genuine goes on.
            assert await runner.beat()
            await host.runners.call("n1", "GET", "/api/vps/snapshots/7")

    run(scenario())


def test_nothing_recorded_is_taken_after_a_restart_of_either_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        async with wire.open() as runner:
            async with wire.host() as host:
                async with runner.serving(wire.at_runner, wire.at_host):
                    await live(wire, host, runner)
                (runner.root / "f").write_text("newer")
                orders = len(runner.orders)
                async with runner.serving(wire.at_runner, wire.at_host):
                    await play_all(wire, runner)
                    await host.runners.call("n1", "GET", "/api/vps/snapshots/7")
                    await play_all(wire, runner)
                    assert len(runner.orders) == orders
            async with runner.serving(wire.at_runner, wire.at_host), wire.host() as host:
                await play_all(wire, runner)
                revision = host.harness.room.control.figures.revision
                assert not await runner.beat()
                await runner.register(wire.at_runner.port)
                assert await runner.beat()
                await play_all(wire, runner)
                assert host.harness.room.control.figures.revision > revision
                # Orders flow at once, by the epoch that the host learns anew.
                await host.harness.submit(targets=["n1"])
                await until(lambda: len(runner.orders) == orders + 1)
                assert (runner.root / "f").read_text() == "newer"

    run(scenario())


def bent_by(change: dict[str, str], body: bytes | None = None) -> Any:
    def bend(spoken: Spoken) -> web.StreamResponse:
        headers = {**dict(spoken.answer_headers), **change}
        return web.Response(
            status=spoken.status, headers=headers, body=spoken.answer if body is None else body
        )

    return bend


@pytest.mark.parametrize(
    "bend",
    [
        bent_by({"X-Log-Size": "1"}),
        bent_by({"Content-Type": "text/html"}),
        bent_by({"KohakuRiver-Answer": ""}),
        bent_by({}, b"forged"),
        bent_by({}, b""),
        bent_by({"Content-Encoding": "gzip"}, gzip.compress(bytes(1 << 20))),
        bent_by({"KohakuRiver-Epoch": "e" * 22}),
    ],
)
def test_an_answer_that_was_changed_is_refused(tmp_path: Path, bend: Any) -> None:
    async def scenario() -> None:
        wire = Wiretap(tmp_path)
        async with wire.open() as runner, wire.host() as host, runner.serving(wire.at_runner, wire.at_host):
            await live(wire, host, runner)
            place = OutputPlace(TaskId(7), 1, Stream.STDOUT)
            wire.at_runner.bend = wire.at_host.bend = bend
            with pytest.raises(Unavailable):
                await host.dispatcher.fetch_log("n1", place, 0, 100)
            with pytest.raises(Unavailable):
                await runner.beat()
            wire.at_runner.bend = wire.at_host.bend = lambda _spoken: None
            assert (await host.dispatcher.fetch_log("n1", place, 0, 100))[0] == OUTPUT
            assert await runner.beat()

    run(scenario())
