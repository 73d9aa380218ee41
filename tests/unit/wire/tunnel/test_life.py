"""Silence, with time as an argument: a day passes in a moment."""

from kohakuriver.wire.tunnel.life import Due, Life
from kohakuriver.wire.tunnel.table import IdleFlows


def test_one_ping_is_due_for_each_time_of_silence_and_then_the_end() -> None:
    life = Life(heard_at=100.0)
    dues = {second: due for second in range(62) if (due := life.due(100.0 + second)) is not Due.NOTHING}
    assert dues == {20: Due.PING, 40: Due.PING, 60: Due.END, 61: Due.END}


def test_a_clock_that_was_asked_late_gets_one_ping() -> None:
    life = Life(heard_at=0.0)
    assert life.due(45.0) is Due.PING
    assert life.due(46.0) is Due.NOTHING


def test_what_is_heard_is_life() -> None:
    life = Life(heard_at=0.0, ping_after=20.0, end_after=60.0)
    for hour in range(1, 25 * 60):
        now = hour * 59.0
        assert life.due(now) is Due.PING
        life.heard(now)
        assert life.due(now + 19.9) is Due.NOTHING
        assert life.wakes_at() == now + 20.0


def test_it_is_asked_again_no_later_than_something_is_due() -> None:
    life = Life(heard_at=0.0, ping_after=20.0, end_after=30.0)
    assert life.wakes_at() == 20.0
    assert life.due(20.0) is Due.PING
    assert life.wakes_at() == 30.0


def test_flows_end_in_the_order_in_which_they_fell_silent() -> None:
    flows = IdleFlows(idle_seconds=60.0)
    for flow in (1, 2, 3, 4):
        flows.touch(flow)
    assert list(flows.idle(0.0)) == []
    flows.touch(2)
    flows.forget(3)
    assert list(flows.idle(30.0)) == []
    assert list(flows.idle(60.0)) == [1, 4]
    assert list(flows.idle(89.0)) == []
    assert list(flows.idle(90.0)) == [2]
    assert list(flows.idle(1000.0)) == []
