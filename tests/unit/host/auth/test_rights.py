"""What is open by a right is closed when that is lost, once, with its reason, and nothing else is."""

import asyncio
import contextlib
from functools import partial

import pytest

from kohakuriver.host.auth import Rights

pytestmark = pytest.mark.anyio


class Standing:
    """A right that a test takes away. `asked`: how often it was asked about; `closed`: with which reasons."""

    def __init__(self, lost: str | None = None) -> None:
        self.lost = lost
        self.asked = 0
        self.closed: list[str] = []

    def check(self) -> str | None:
        self.asked += 1
        return self.lost

    def close(self, reason: str) -> None:
        self.closed.append(reason)


def test_only_what_lost_its_right_is_closed_and_once() -> None:
    rights, kept, lost = Rights(), Standing(), Standing()
    with rights.held(kept.check, kept.close), rights.held(lost.check, lost.close):
        rights.look_again()
        assert (kept.closed, lost.closed) == ([], [])
        lost.lost = "the token ended"
        rights.look_again()
        rights.look_again()
    assert (kept.closed, lost.closed) == ([], ["the token ended"])


def test_a_right_that_was_lost_while_it_was_being_used_for_the_first_time_counts_as_lost() -> None:
    rights, late = Rights(), Standing("it ended meanwhile")
    with rights.held(late.check, late.close):
        assert late.closed == ["it ended meanwhile"]


def test_what_is_not_open_any_more_is_not_asked_about() -> None:
    rights, over = Rights(), Standing()
    with rights.held(over.check, over.close):
        pass
    asked = over.asked
    over.lost = "too late"
    rights.look_again()
    assert (over.asked, over.closed) == (asked, [])


def test_what_is_closed_by_the_end_of_another_is_not_closed_again() -> None:
    """As a connection takes along what it carries."""
    rights, inner = Rights(), Standing()
    opened = rights.held(inner.check, inner.close)

    def close_all(_reason: str) -> None:
        opened.__exit__(None, None, None)

    outer = Standing()
    with rights.held(outer.check, close_all):
        opened.__enter__()
        outer.lost = inner.lost = "the token ended"
        rights.look_again()
        rights.look_again()
    assert len(inner.closed) <= 1


def test_a_right_that_cannot_be_looked_at_ends_what_it_opened_and_no_other() -> None:
    rights, kept, lost, broken = Rights(), Standing(), Standing(), Standing()

    def fail() -> str | None:
        if broken.lost is not None:
            raise KeyError("defect")
        return None

    with (
        rights.held(fail, broken.close),
        rights.held(lost.check, lost.close),
        rights.held(kept.check, kept.close),
    ):
        lost.lost = broken.lost = "the token ended"
        rights.look_again()
    assert lost.closed == ["the token ended"]
    assert broken.closed == ["the host failed; see its log"]
    assert kept.closed == []


def test_what_was_opened_first_is_asked_first() -> None:
    """What a connection carries may rely on what the connection was told."""
    rights, order = Rights(), list[int]()

    def note(number: int) -> str | None:
        order.append(number)
        return None

    with contextlib.ExitStack() as stack:
        for number in range(20):
            stack.enter_context(rights.held(partial(note, number), lambda _: None))
        order.clear()
        rights.look_again()
    assert order == list(range(20))


async def test_who_waits_for_a_loss_is_told_why_and_who_has_gone_harms_nobody() -> None:
    rights, right, other = Rights(), Standing(), Standing()
    waiting = asyncio.create_task(rights.lost(right.check))
    gone = asyncio.create_task(rights.lost(right.check))
    with rights.held(other.check, other.close):
        await asyncio.sleep(0)
        gone.cancel()
        right.lost = other.lost = "the token ended"
        rights.look_again()
        assert await waiting == "the token ended"
        assert other.closed == ["the token ended"]
    with pytest.raises(asyncio.CancelledError):
        await gone
