"""The engines of a node together: what none of them can do, the node cannot."""

from collections.abc import Mapping

import pytest

from kohakuriver.models.abilities import LACKS, Ability
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.engines import Engines
from kohakuriver.runner.engines.fake.fake_engine import FakeEngine
from kohakuriver.runner.engines.fake.machine import FakeMachine

pytestmark = pytest.mark.anyio
NO_VPS = {EngineAbility.VPS: "it keeps no files"}
NOTHING = dict.fromkeys(EngineAbility, "it is a toy")


def engines_lacking(*lacking: Mapping[EngineAbility, str]) -> Engines:
    """None of them is admitted."""

    async def open_one(number: int) -> Engine:
        return FakeEngine(FakeMachine(), lacking=lacking[number])

    openers = {str(number): lambda number=number: open_one(number) for number in range(len(lacking))}
    return Engines(openers, lambda _: "0")


async def admit(engines: Engines, name: str) -> None:
    engine, _ = await engines.prepare(name)
    engines.admit(name, engine)


async def test_what_an_engine_lacks_that_work_cannot_begin_without_is_the_nodes_lack() -> None:
    engines = engines_lacking(NO_VPS | {EngineAbility.PAUSE: "it cannot pause"})
    await admit(engines, "0")
    assert engines.lacks() == {Ability.VPS: f"{LACKS[Ability.VPS]}: it keeps no files"}


async def test_what_one_of_several_can_do_the_node_can_and_the_others_are_waited_for() -> None:
    engines = engines_lacking(NOTHING, NO_VPS)
    await admit(engines, "0")
    assert engines.lacks() == {}
    await admit(engines, "1")
    assert engines.lacks() == {Ability.VPS: f"{LACKS[Ability.VPS]}: it is a toy; it keeps no files"}
