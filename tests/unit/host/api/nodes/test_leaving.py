"""Drain, undrain and removal over HTTP, and what the runner of a removed node is told."""

from pathlib import Path

from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode


def test_a_node_is_drained_and_opened_again(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        moves = await harness.submit(targets=["n1"], retries=1, registry_image="busybox")
        stays = await harness.submit(targets=["n1"], registry_image="busybox")
        answer = await harness.call("ada", "POST", "/api/nodes/n1/drain", json={"move": True})
        told = answer.json()
        assert (answer.status_code, told["task_ids"], told["moving"]) == (200, [moves, stays], [moves])
        [node] = (await harness.call("vera", "GET", "/api/nodes")).json()
        assert (node["draining"], node["tasks"], node["status"]) == (True, 2, "online")
        assert (await harness.call("ada", "POST", "/api/nodes/n1/undrain")).status_code == 200
        [node] = (await harness.call("vera", "GET", "/api/nodes")).json()
        assert node["draining"] is False

    play(tmp_path, scenario)


def test_what_is_not_there_cannot_be_drained_opened_or_removed(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for method, path in (("POST", "/drain"), ("POST", "/undrain"), ("DELETE", "")):
            assert (await harness.call("ada", method, f"/api/nodes/n9{path}")).status_code == 404

    play(tmp_path, scenario)


def test_the_credential_of_a_removed_node_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "n1").enrol()
        beat = {"revision": 1}
        assert (await node.send("PUT", "/api/heartbeat/n1", beat)).status_code == 200
        removed = await harness.call("ada", "DELETE", "/api/nodes/n1")
        assert removed.status_code == 200
        for method, path, body in (
            ("PUT", "/api/heartbeat/n1", beat),
            ("POST", "/api/updates", []),
            ("POST", "/api/register", {}),
        ):
            refused = await node.send(method, path, body)
            assert refused.status_code == 401

    play(tmp_path, scenario)


def test_a_node_with_work_is_removed_by_force_alone(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"], registry_image="busybox")
        refused = await harness.call("ada", "DELETE", "/api/nodes/n1")
        assert (refused.status_code, task in refused.json()["detail"]) == (409, True)
        assert (await harness.call("ada", "DELETE", "/api/nodes/n1?force=true")).status_code == 200
        assert (await harness.call("vera", "GET", f"/api/status/{task}")).json()["status"] == "failed"

    play(tmp_path, scenario)
