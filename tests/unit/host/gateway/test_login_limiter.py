from kohakuriver.host.gateway.login_limiter import (
    MOST_IN_ALL,
    MOST_PER_ADDRESS,
    MOST_WAITING_IN_ALL,
    MOST_WAITING_PER_ADDRESS,
    LoginLimiter,
    PendingLogin,
)


class Logins:
    """Connections that want to log in, by the names that a test gives them, and those that were let in."""

    def __init__(self) -> None:
        self.login_limiter = LoginLimiter()
        self.inside: list[str] = []
        self.pending_logins: dict[str, PendingLogin | None] = {}

    def enter(self, address: str, name: str) -> bool:
        """Tell whether it was not turned away."""
        self.pending_logins[name] = self.login_limiter.enter(address, lambda: self.inside.append(name))
        return self.pending_logins[name] is not None

    def fill(self, addresses: list[str]) -> None:
        for number, address in enumerate(addresses):
            assert self.enter(address, f"{address}#{number}")

    def leave(self, name: str) -> None:
        pending = self.pending_logins[name]
        assert pending is not None
        self.login_limiter.leave(pending)

    def give_up(self, name: str) -> bool:
        pending = self.pending_logins[name]
        assert pending is not None
        return self.login_limiter.give_up(pending)


def test_one_address_has_so_many_inside_and_the_next_waits_for_one_of_them_to_leave() -> None:
    logins = Logins()
    logins.fill(["10.0.0.1"] * MOST_PER_ADDRESS)
    assert len(logins.inside) == MOST_PER_ADDRESS
    assert logins.enter("10.0.0.1", "next")
    assert logins.enter("10.0.0.2", "other")
    assert logins.inside[-1] == "other"
    logins.leave("other")
    assert "next" not in logins.inside
    logins.leave("10.0.0.1#3")
    assert logins.inside[-1] == "next"


def test_all_addresses_together_have_no_more_inside_than_there_is_room() -> None:
    logins = Logins()
    logins.fill([f"10.0.{number}.1" for number in range(MOST_IN_ALL)])
    assert logins.enter("10.1.0.1", "late")
    assert len(logins.inside) == MOST_IN_ALL
    logins.leave("10.0.7.1#7")
    assert logins.inside[-1] == "late"


def test_those_who_wait_come_in_by_turns_and_nobody_blocks_another_address() -> None:
    logins = Logins()
    logins.fill(["10.0.0.1"] * MOST_PER_ADDRESS)
    logins.fill([f"10.0.{number + 1}.1" for number in range(MOST_IN_ALL - MOST_PER_ADDRESS)])
    for address, name in (("10.0.0.1", "first"), ("10.9.9.9", "second"), ("10.0.0.1", "third")):
        assert logins.enter(address, name)
    logins.leave("10.0.5.1#4")
    assert logins.inside[-1] == "second"
    logins.leave("10.0.0.1#0")
    logins.leave("10.0.0.1#1")
    assert logins.inside[-2:] == ["first", "third"]


def test_the_waiting_are_bounded_for_each_address_and_in_all() -> None:
    logins = Logins()
    logins.fill(["10.0.0.1"] * (MOST_PER_ADDRESS + MOST_WAITING_PER_ADDRESS))
    assert not logins.enter("10.0.0.1", "one too many")
    assert logins.enter("10.0.0.2", "other")
    many = Logins()
    many.fill([f"10.0.{number}.1" for number in range(MOST_IN_ALL)])
    many.fill([f"10.{number + 1}.0.1" for number in range(MOST_WAITING_IN_ALL)])
    assert not many.enter("10.200.200.1", "one too many")


def test_who_gives_up_waiting_is_not_let_in_and_makes_room() -> None:
    logins = Logins()
    logins.fill(["10.0.0.1"] * (MOST_PER_ADDRESS + MOST_WAITING_PER_ADDRESS))
    waiting = f"10.0.0.1#{MOST_PER_ADDRESS}"
    assert logins.give_up(waiting)
    assert not logins.give_up(waiting)
    assert not logins.give_up("10.0.0.1#0")  # which is inside
    assert logins.enter("10.0.0.1", "another")
    logins.leave("10.0.0.1#0")
    assert logins.inside[-1] == f"10.0.0.1#{MOST_PER_ADDRESS + 1}"


def test_one_machines_many_addresses_of_ipv6_count_as_one_and_mapped_ones_as_what_they_are() -> None:
    logins = Logins()
    logins.fill([f"2001:db8::{number + 1:x}" for number in range(MOST_PER_ADDRESS)])
    logins.enter("2001:db8::ffff", "same machine")
    logins.enter("2001:db8:0:1::1", "next door")
    assert logins.inside[-1] == "next door"
    logins.fill(["::ffff:10.0.0.1"] * MOST_PER_ADDRESS)
    logins.enter("10.0.0.1", "same address")
    logins.enter("fe80::1%eth0", "link-local")
    logins.enter("", "gone before it could be asked")
    assert logins.inside[-2:] == ["link-local", "gone before it could be asked"]


def test_what_was_turned_away_is_told_once_with_the_addresses_that_most_came_from() -> None:
    logins = Logins()
    for address, extra in (("10.0.0.1", 3), ("10.0.0.2", 4)):
        logins.fill([address] * (MOST_PER_ADDRESS + MOST_WAITING_PER_ADDRESS))
        assert not any(logins.enter(address, f"{address} extra {number}") for number in range(extra))
    assert logins.login_limiter.turned_away() == (7, ["10.0.0.2", "10.0.0.1"])
    assert logins.login_limiter.turned_away() == (0, [])
