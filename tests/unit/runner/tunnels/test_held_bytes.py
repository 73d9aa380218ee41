"""What waits in a runner leaves no memory behind that it took."""

from collections.abc import Iterator

import pytest

from kohakuriver.runner.tunnels.held_bytes import HeldBytes
from support.model.virtual_time import VirtualLoop

BURST = 10 << 20


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def test_memory_is_given_back_when_nothing_has_waited_for_a_while_after_a_burst(loop: VirtualLoop) -> None:
    given: list[float] = []
    held = HeldBytes(give_back=lambda: given.append(loop.time()))

    async def wait(amount: int) -> None:
        held.add(amount)

    async def leave(amount: int) -> None:
        held.take(amount)

    for _ in range(100):
        loop.do(wait(1000))
        loop.do(leave(1000))
    loop.advance(60)
    assert given == []
    loop.do(wait(BURST))
    loop.do(leave(BURST - 1))
    loop.advance(60)
    assert given == []
    loop.do(leave(1))
    loop.do(wait(1))
    loop.advance(60)
    assert given == []
    loop.do(leave(1))
    loop.advance(60)
    assert len(given) == 1
    loop.do(wait(1000))
    loop.do(leave(1000))
    loop.advance(60)
    assert len(given) == 1
