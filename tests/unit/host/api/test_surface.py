"""What the interface says about itself: errors in one shape, its description, its own pages."""

import asyncio
import json
import re
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from kohakuriver.host.api.http.answer_cache import AnswerCache
from kohakuriver.host.api.nodes.health import cluster_health
from support.host.api import ApiHarness, StandInShell, play


def test_every_refusal_has_a_sentence(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for method, path, status in (
            ("GET", "/nowhere", 404),
            ("PATCH", "/api/nodes", 405),
            ("GET", "/api/nodes", 401),
            ("GET", "/api/tasks?limit=0", 401),
        ):
            answer = await harness.call(None, method, path)
            assert answer.status_code == status
            assert len(answer.json()["detail"]) > 10
        answer = await harness.call(None, "PUT", "/api/enrol")
        assert answer.headers["allow"] == "GET, POST"
        answer = await harness.call("vera", "GET", "/api/tasks?limit=0&status=flying")
        assert answer.status_code == 422
        assert "status" in answer.json()["detail"]
        assert "limit" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_an_unexpected_error_is_500_and_tells_nothing_of_the_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        def broken() -> None:
            raise ValueError("inside")

        monkeypatch.setattr(harness.room.control.nodes, "snapshots", broken)
        answer = await harness.call("vera", "GET", "/api/nodes")
        assert answer.status_code == 500
        assert "inside" not in answer.text
        assert "log" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_the_description_names_every_route_its_body_its_permission_and_its_errors(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        document = (await harness.call(None, "GET", "/openapi.json")).json()
        references = set(re.findall(r"#/components/schemas/([\w\[\].-]+)", json.dumps(document)))
        assert references <= set(document["components"]["schemas"])
        submit = document["paths"]["/api/submit"]["post"]
        assert submit["security"] == [{"bearer": []}]
        assert {"202", "401", "403", "404", "409", "413", "422", "503"} <= set(submit["responses"])
        body = submit["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        assert document["components"]["schemas"][body]["examples"]
        beat = document["paths"]["/api/heartbeat/{hostname}"]["put"]
        assert beat["security"] == [{"runner": []}]
        assert "requestBody" in beat
        stdout = document["paths"]["/api/tasks/{task_id}/stdout"]["get"]
        assert {"lines", "follow", "Range", "task_id"} <= {one["name"] for one in stdout["parameters"]}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert operation["summary"], path

    play(tmp_path, scenario)


def test_the_pages_load_nothing_from_elsewhere_and_write_text_only(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for path in ("/", "/docs"):
            page = await harness.call(None, "GET", path)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
            assert sources
            for source in sources:
                assert source.startswith("/")
                loaded = await harness.call(None, "GET", source)
                assert loaded.status_code == 200
                assert "//" not in source
                assert not re.search(
                    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", loaded.text
                )
            assert not re.search(r"<script(?! src)|<style| on\w+=", page.text)

    play(tmp_path, scenario)


def test_readiness_names_the_part_that_does_not_work(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        assert (await harness.call(None, "GET", "/healthz")).json() == {"status": "ok"}
        assert (await harness.call(None, "GET", "/readyz")).json() == {"status": "ready", "faults": []}
        parts = harness.app.state.parts
        object.__setattr__(parts, "faults", lambda: [("store", "the disk is full")])
        answer = await harness.call(None, "GET", "/readyz")
        assert answer.status_code == 503
        assert answer.json()["faults"] == [{"part": "store", "message": "the disk is full"}]

    play(tmp_path, scenario)


def test_metrics_count_tasks_and_nodes(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        await harness.submit()
        text = (await harness.call("vera", "GET", "/metrics")).text
        assert 'kohakuriver_tasks{state="assigning"} 1.0' in text
        assert 'kohakuriver_nodes{status="online"} 1.0' in text

    play(tmp_path, scenario)


def test_a_terminal_carries_characters_whole_and_ends_with_its_shell(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        letter = "\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode()
        shell = harness.environments.shell = StandInShell([b"gr" + letter[:1], letter[1:] + b"n"])
        async with (
            harness.served() as address,
            connect(
                f"ws://{address}/ws/docker/host/containers/base/terminal",
                additional_headers=harness.credential("otto"),
                proxy=None,
            ) as socket,
        ):
            frames = [json.loads(await socket.recv()) for _ in range(2)]
            assert [frame["data"] for frame in frames] == ["gr", f"{letter.decode()}n"]
            await socket.send('{"type": "resize", "rows": 40, "cols": 132}')
            await socket.send('{"type": "input", "data": "ls\\n"}')
            await socket.send("{nonsense")
            assert json.loads(await socket.recv())["type"] == "error"
            assert (shell.sizes, shell.written) == ([(40, 132)], [b"ls\n"])
            shell.output.put_nowait(b"")
            await socket.wait_closed()
            async with asyncio.timeout(5):
                await shell.closed.wait()

    play(tmp_path, scenario)


def test_a_terminal_to_an_environment_that_is_not_there_is_404(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address, httpx2.AsyncClient() as client:
            headers = {
                **harness.credential("otto"),
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            }
            for name, status in (("gone", 404), ("..%2Fx", 403), ("-x", 422)):
                url = f"http://{address}/ws/docker/host/containers/{name}/terminal"
                assert (await client.get(url, headers=headers)).status_code == status, name

    play(tmp_path, scenario)


def test_many_clients_with_one_question_cost_two_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache, made, mark = AnswerCache(), 0, 0

        async def make() -> bytes:
            nonlocal made, mark
            made += 1
            mark += 1  # the state changes all the time
            await asyncio.sleep(0.01)
            return str(made).encode()

        await asyncio.gather(*(cache.get("q", lambda: mark, make) for _ in range(50)))
        assert made <= 2
        still = mark
        first = await cache.get("q", lambda: still, make)
        assert await cache.get("q", lambda: still, make) == first
        assert await cache.get("q", lambda: still + 1, make) != first
        assert await cache.get("q", lambda: still + 1, make, max_age_seconds=-1) != first

    asyncio.run(scenario())


def test_health_lays_nodes_side_by_side_in_spite_of_their_clocks() -> None:
    from datetime import UTC, datetime, timedelta

    from kohakuriver.wire.messages import NodeFigures

    now = datetime(2026, 1, 1, tzinfo=UTC)

    def samples(shift_hours: int, percent: float) -> list[NodeFigures]:
        return [
            NodeFigures(
                at=now + timedelta(hours=shift_hours, seconds=second),
                cpu_percent=percent,
                memory_percent=50,
                memory_used_bytes=1,
                memory_total_bytes=2,
                current_max_temp=percent,
            )
            for second in range(100)
        ]

    health = cluster_health([("a", samples(0, 10)), ("b", samples(5, 30)), ("silent", [])], [])
    assert len(health.nodes) == len(health.aggregate) == 60
    assert [point.hostname for point in health.nodes[-1]] == ["a", "b"]
    assert health.aggregate[0].cpu_percent == 20
    assert health.aggregate[0].memory_percent == 50
    assert health.aggregate[0].current_max_temp == 30


def test_environments_are_made_listed_and_deleted_by_checked_names(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        body = {"image_name": "debian:12", "container_name": "base"}
        assert (await harness.call("otto", "POST", "/api/docker/host/create", json=body)).status_code == 200
        for action in ("start", "stop", "delete", "migrate"):
            assert (await harness.call("otto", "POST", f"/api/docker/host/{action}/base")).status_code == 200
            assert (await harness.call("otto", "POST", f"/api/docker/host/{action}/-base")).status_code == 422
        wanted = [("create", "debian:12", "base", "missing"), ("start", "base"), ("stop", "base")]
        assert harness.environments.calls == [*wanted, ("delete", "base", "by force"), ("migrate", "base")]
        for changed in ({"image_name": "file:///x"}, {"container_name": "../x"}, {"container_name": "a b"}):
            answer = await harness.call("otto", "POST", "/api/docker/host/create", json={**body, **changed})
            assert answer.status_code == 422
        row = (await harness.call("otto", "GET", "/api/docker/list")).json()["base"]
        assert (row["name"], row["latest_timestamp"], row["size_bytes"]) == ("base", 1_700_000_000, 5)
        assert row["latest_tarball"] == row["all_versions"][0]["tarball"] == "base-1700000000.tar"
        made = (await harness.call("otto", "POST", "/api/docker/create_tar/base")).json()
        assert "base-1700000000.tar" in made["message"]

    play(tmp_path, scenario)


def test_nodes_are_reported_a_deleted_environment_and_unreachable_ones_are_named(
    tmp_path: Path,
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        await harness.room.join("n2")
        told = await harness.call("otto", "DELETE", "/api/docker/container/base")
        assert "removed from 0 of 2 nodes" in told.json()["message"]
        assert "not reached: n1, n2" in told.json()["message"]
        harness.runners.answers["DELETE", "/api/docker/images/base"] = b"{}"
        told = await harness.call("otto", "DELETE", "/api/docker/container/base")
        assert told.json()["message"].endswith("its image is removed from 2 of 2 nodes")

    play(tmp_path, scenario)
