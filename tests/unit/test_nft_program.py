"""The program `nft` as it is run: one that ends early is a fault with a sentence, and ends no runner."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from kohakuriver.runner.network.nft_program import NftFault, apply_rules

_RUNS = 60


@pytest.fixture
def end_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nft"
    program.symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("end_at_once")
def test_one_that_ends_before_it_has_read_its_rules_is_a_fault() -> None:
    """In the daemons' own event loop, many times: it is a race between the two programs."""

    async def run_often() -> set[str]:
        return {await _said("x" * 200_000) for _ in range(_RUNS)}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run_often()) == {"nft refused: status 1"}


async def _said(text: str) -> str:
    # Somebody else has the loop while the program ends.
    slow = asyncio.create_task(_hold_up())
    try:
        await apply_rules(text)
    except NftFault as fault:
        return str(fault)
    finally:
        await slow
    return "nothing"


async def _hold_up() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
