"""The labs over which the suite of each part of the engine contract runs.

`bare` is a fake that lacks every ability: there a test may end with the sentence that refuses what
it is about, and with no other error.
"""

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from kohakuriver.models.errors import SwitchedOff
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from support.engines.labs import FakeLab, Lab, docker_lab

_LACKING = {ability: f"this engine does not know {ability.value}" for ability in EngineAbility}


@pytest.fixture(
    scope="module",
    params=["fake", "bare", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.root])],
)
async def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """The module says by `POOL_SIZE` how many sandboxes it needs at once."""
    folder: Path = tmp_path_factory.mktemp("engine")
    if request.param != "docker":
        yield FakeLab(folder, _LACKING if request.param == "bare" else None)
        return
    async with docker_lab(folder, pool_size=getattr(request.module, "POOL_SIZE", 1)) as real:
        yield real


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    try:
        return (yield)
    except SwitchedOff as refusal:
        lab = pyfuncitem.funcargs.get("lab")
        if not isinstance(lab, FakeLab) or str(refusal) not in lab.engine.abilities.lacking.values():
            raise
        return True
