"""Starts take turns; one that hangs keeps nobody else from having theirs."""

import asyncio
from collections.abc import Iterator

import pytest

from kohakuriver.runner.engines.docker.workloads.start_turns import StartTurns
from support.model.virtual_time import VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.settle()
    made.close()


class Starts:
    """Counts those that are under way."""

    def __init__(self, at_once: int) -> None:
        self.turns = StartTurns(at_once)
        self.now = self.most = self.done = 0

    async def one(self, seconds: float) -> None:
        async with self.turns.one():
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.now -= 1
        self.done += 1


def test_no_more_than_so_many_are_under_way(loop: VirtualLoop) -> None:
    starts = Starts(3)
    tasks = [loop.do(starts.one(1.0)) for _ in range(10)]
    loop.advance(4.5)
    assert (starts.most, starts.done) == (3, 10)
    assert all(task.done() for task in tasks)


def test_starts_that_hang_hold_up_others_for_a_while_only(loop: VirtualLoop) -> None:
    starts = Starts(2)
    hanging = [loop.do(starts.one(100_000.0)) for _ in range(2)]
    others = [loop.do(starts.one(1.0)) for _ in range(6)]
    loop.advance(10.0)
    assert starts.done == 0
    loop.advance(30.0)
    assert all(task.done() for task in others)
    assert not any(task.done() for task in hanging)


def test_a_turn_is_given_back_once_however_it_ends(loop: VirtualLoop) -> None:
    starts = Starts(1)
    late = loop.do(starts.one(25.0))  # its turn ends before it does
    cancelled = loop.do(starts.one(5.0))
    loop.advance(21.0)
    cancelled.cancel()
    waiting = loop.do(starts.one(100.0))
    waiting.cancel()
    loop.advance(30.0)
    assert late.done()
    starts.most = 0
    tasks = [loop.do(starts.one(1.0)) for _ in range(4)]
    loop.advance(10.0)
    assert all(task.done() for task in tasks)
    assert starts.most == 1
