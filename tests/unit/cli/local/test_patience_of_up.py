"""How long `up` waits: for a slow machine long, for a node that says what is wrong with it not."""

from kohakuriver.cli.local.cluster import Patience


def test_a_slow_start_is_waited_for_far_beyond_the_time_for_a_fault() -> None:
    patience = Patience(300)
    assert not any(patience.is_over(now, "") for now in (0.0, 61.0, 150.0, 300.0))
    assert patience.is_over(301.0, "")


def test_a_node_that_keeps_a_fault_is_given_up_a_minute_after_it_was_seen() -> None:
    patience = Patience(300)
    assert not patience.is_over(0.0, "")
    assert not patience.is_over(100.0, "the disk is full")
    assert not patience.is_over(160.0, "the disk is full")
    assert patience.is_over(161.0, "the disk is full")


def test_a_fault_that_goes_and_comes_again_is_counted_anew() -> None:
    patience = Patience(300)
    assert not patience.is_over(0.0, "not reached yet")
    assert not patience.is_over(50.0, "")
    assert not patience.is_over(70.0, "not reached yet")
    assert not patience.is_over(130.0, "not reached yet")
    assert patience.is_over(131.0, "not reached yet")
