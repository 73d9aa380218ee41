"""Everybody who waits for a change is woken by it, once."""

import asyncio

from kohakuriver.broadcast import Broadcast


def test_everybody_is_woken_and_waits_anew_for_the_next_change() -> None:
    async def scenario() -> None:
        news = Broadcast()
        waiting = [asyncio.ensure_future(news.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        news.wake_all()
        late = asyncio.ensure_future(news.wait())
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert not late.done()
        news.wake_all()
        await asyncio.wait_for(late, 10)

    asyncio.run(scenario())


def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    async def scenario() -> None:
        news = Broadcast()
        upcoming = news.next
        news.wake_all()
        await asyncio.wait_for(upcoming.wait(), 10)
        assert not news.next.is_set()

    asyncio.run(scenario())
