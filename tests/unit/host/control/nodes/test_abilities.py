"""What runners of each version announce that their nodes have, as placement and its reasons take it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.nodes.node import offers_of
from kohakuriver.models.abilities import HAD_BEFORE, LACKS, Ability
from kohakuriver.models.enums import TaskType
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.task_files import TaskFile
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.models.vps import VpsSpec
from kohakuriver.wire.messages import Registration, decode
from support.host.control import CLUSTER_ID, control_room

NAME = Ability.SHARED_STORAGE.value
MACHINE = {"hostname": "n1", "url": "http://n1:8001", "total_cores": 2, "total_ram_bytes": 1 << 30}
OURS = {"shared_cluster_id": CLUSTER_ID}


def registration(**fields: Any) -> Registration:
    return decode(json.dumps(MACHINE | fields).encode(), Registration)


@pytest.mark.parametrize(
    ("fields", "offers"),
    [
        (OURS, {Ability.SHARED_STORAGE}),  # of a runner that knows no abilities, the marker tells all
        ({}, set()),
        ({"shared_cluster_id": "another"}, set()),
        (OURS | {"abilities": [NAME]}, {Ability.SHARED_STORAGE}),
        (OURS | {"abilities": []}, set()),
        ({"abilities": [NAME]}, set()),
        ({"shared_cluster_id": "another", "abilities": [NAME]}, set()),
        (OURS | {"abilities": ["flying", NAME, "", NAME]}, {Ability.SHARED_STORAGE}),
        (OURS | {"abilities": ["flying"], "lacks": {"diving": "cannot dive"}}, set()),
    ],
)
def test_a_node_offers_what_it_announced_and_this_cluster_finds_there(
    fields: dict[str, Any], offers: set[Ability]
) -> None:
    assert offers_of(registration(**fields), CLUSTER_ID) - HAD_BEFORE == offers


@pytest.mark.parametrize(
    ("fields", "offers"),
    [
        ({}, HAD_BEFORE),
        ({"abilities": [NAME], "lacks": {}}, HAD_BEFORE),
        ({"abilities": ["vps"], "lacks": {"inputs": "has no pipes"}}, {Ability.VPS}),
        ({"abilities": [], "lacks": {"inputs": "has no pipes", "vps": ""}}, set()),
    ],
)
def test_what_every_runner_had_before_it_was_announced_is_lacking_only_where_it_says_so(
    fields: dict[str, Any], offers: set[Ability]
) -> None:
    assert offers_of(registration(**fields), CLUSTER_ID) == offers


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"abilities": [], "lacks": {NAME: "has a share that hangs"}}, "has a share that hangs"),
        ({"abilities": [], "lacks": {"flying": "has no wings"}}, LACKS[Ability.SHARED_STORAGE]),
        ({"shared_cluster_id": "another"}, LACKS[Ability.SHARED_STORAGE]),
    ],
)
def test_a_task_that_waits_for_an_ability_says_why_the_node_lacks_it(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            await room.join(**fields)
            (task,) = (
                await room.control.tasks.submit("alice", [TaskSpec("true")], needs_approval=False)
            ).tasks
            assert room.control.tasks.pending_reasons(task) == [("n1", reason)]
            others = await room.submit(registry_image="busybox")
            assert await room.accept_orders() == [others]
            await room.register(abilities=[NAME])
            await room.beat()
            assert await room.accept_orders() == [task.id]

    asyncio.run(scenario())


def test_work_goes_to_the_nodes_whose_engines_can_do_what_it_needs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            await room.join("n1", lacks={"vps": "has a plain engine", "inputs": "has no pipes"})
            await room.join("n2", cores=1)
            vps = TaskSpec("", task_type=TaskType.VPS, vps=VpsSpec(), required_cores=1)
            first, second = [await room.control.vps.create("ann", vps) for _ in range(2)]
            reader = await room.submit(None, stdin=TaskFile.of(b"text"))
            plain = await room.submit(None)
            assert await room.accept_orders("n2") == [first.id]
            assert await room.accept_orders("n1") == [plain]
            tasks = room.control.tasks
            assert dict(tasks.pending_reasons(second))["n1"] == "has a plain engine"
            assert dict(tasks.pending_reasons(await tasks.find(reader)))["n1"] == "has no pipes"

    asyncio.run(scenario())


def test_what_a_node_may_say_of_abilities_has_an_end() -> None:
    short = registration(lacks={"flying": "a" * 600 + "b" * 600}).lacks["flying"]
    assert len(short) <= 1000
    assert (short[0], short[-1]) == ("a", "b")
    many: list[dict[str, Any]] = [
        {"abilities": ["flying"] * 101},
        {"abilities": ["f" * 257]},
        {"lacks": {f"flying{number}": "" for number in range(101)}},
        {"lacks": {"f" * 257: ""}},
    ]
    for fields in many:
        with pytest.raises(InvalidInput, match="length"):
            registration(**fields)
