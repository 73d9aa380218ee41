"""The list of nodes is made anew only where nodes have changed, and never shows an old state."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.api.nodes import routes
from kohakuriver.host.api.records import NodeRecord, node_record
from kohakuriver.host.control.nodes.node import NodeSnapshot
from kohakuriver.models.enums import TaskState
from support.host.api import ApiHarness, play


@pytest.fixture(autouse=True)
def _no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer may be a quarter of a second old; here each one is made."""
    monkeypatch.setattr(routes, "NODES_AGE_SECONDS", -1.0)


async def listed(harness: ApiHarness) -> dict[str, dict[str, Any]]:
    return {node["hostname"]: node for node in (await harness.call("vera", "GET", "/api/nodes")).json()}


def test_every_change_of_a_node_shows_in_the_next_list(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=4)
        assert (await listed(harness))["n1"]["cores_used"] == 0
        task = await harness.submit(required_cores=3)
        assert (await listed(harness))["n1"]["cores_used"] == 3
        await harness.room.accept_orders("n1")
        await harness.room.report(int(task), TaskState.RUNNING, 1)
        await harness.room.report(int(task), TaskState.COMPLETED, 2, exit_code=0)
        assert (await listed(harness))["n1"]["cores_used"] == 0
        before = (await listed(harness))["n1"]["last_heartbeat"]
        await harness.room.beat("n1")
        assert (await listed(harness))["n1"]["last_heartbeat"] != before
        await harness.room.register("n1", cores=16, boot_id="boot-2")
        node = (await listed(harness))["n1"]
        assert (node["total_cores"], node["status"]) == (16, "offline")
        await harness.room.join("n0")
        assert list(await listed(harness)) == ["n0", "n1"]

    play(tmp_path, scenario)


def test_a_node_that_is_as_it_was_is_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []

    def counted(node: NodeSnapshot) -> NodeRecord:
        encoded.append(node.row.hostname)
        return node_record(node)

    monkeypatch.setattr(routes, "node_record", counted)

    async def scenario(harness: ApiHarness) -> None:
        for name in ("n1", "n2", "n3"):
            await harness.room.join(name)
        first = await listed(harness)
        encoded.clear()
        assert await listed(harness) == first
        assert encoded == []
        await harness.room.beat("n2")
        await listed(harness)
        assert encoded == ["n2"]

    play(tmp_path, scenario)


def test_notices_are_shown_bounded_and_keep_no_work_away(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=4)
        assert (await listed(harness))["n1"]["notices"] == []
        await harness.room.beat("n1", notices=["mount it otherwise", "x" * 10_000, *["more"] * 100])
        told = (await listed(harness))["n1"]["notices"]
        assert (told[0], len(told), len(told[1])) == ("mount it otherwise", 50, 999)
        await harness.submit(required_cores=1)
        assert (await listed(harness))["n1"]["cores_used"] == 1

    play(tmp_path, scenario)
