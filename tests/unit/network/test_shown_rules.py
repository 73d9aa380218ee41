"""What is kept of what `nft` showed, and for how long; and answers of the kernel that are no whole ones."""

import asyncio
import errno
import socket
import struct

import pytest

from kohakuriver.network import netlink_facts
from kohakuriver.network.netlink_facts import ports_of, rules_generation
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.shown_rules import ShownRules


class Kernel:
    """Its rules are changed by who sets `generation`; None: it does not say."""

    def __init__(self) -> None:
        self.generation: int | None = 1
        self.asked = 0
        self.changes_meanwhile = False
        self.refuses = False

    def number(self) -> int:
        if self.generation is None:
            raise OSError(errno.EPERM, "not allowed")
        return self.generation

    async def show(self) -> int:
        self.asked += 1
        if self.refuses:
            raise NetworkFault("nft refused")
        if self.changes_meanwhile and self.generation is not None:
            self.generation += 1
        return self.asked


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(netlink_facts, "rules_generation", made.number)
    return made


def shown(kernel: Kernel, times: int) -> list[int]:
    async def looks() -> list[int]:
        rules = ShownRules()
        return [await rules.get("tables", kernel.show) for _ in range(times)]

    return asyncio.run(looks())


def test_what_did_not_change_is_asked_for_once(kernel: Kernel) -> None:
    assert shown(kernel, 3) == [1, 1, 1]


def test_a_kernel_that_does_not_say_is_asked_each_time(kernel: Kernel) -> None:
    kernel.generation = None
    assert shown(kernel, 3) == [1, 2, 3]


def test_what_changed_while_it_was_shown_is_asked_for_again(kernel: Kernel) -> None:
    kernel.changes_meanwhile = True
    assert shown(kernel, 3) == [1, 2, 3]


def test_a_change_of_any_rule_ends_all_that_was_kept(kernel: Kernel) -> None:
    async def scenario() -> None:
        rules = ShownRules()
        for what in ("one", "other"):
            await rules.get(what, kernel.show)
        kernel.generation = 2
        assert [await rules.get(what, kernel.show) for what in ("one", "other")] == [3, 4]

    asyncio.run(scenario())


def test_a_refusal_is_not_kept(kernel: Kernel) -> None:
    async def scenario() -> None:
        rules = ShownRules()
        kernel.refuses = True
        with pytest.raises(NetworkFault):
            await rules.get("tables", kernel.show)
        kernel.refuses = False
        assert await rules.get("tables", kernel.show) == 2

    asyncio.run(scenario())


class Answers:
    """Stands in for a netlink socket."""

    given: bytes

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, _seconds: float) -> None: ...

    def send(self, _asked: bytes) -> None: ...

    def recv(self, _most: int) -> bytes:
        return self.given


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> type[Answers]:
    monkeypatch.setattr(socket, "socket", Answers)
    monkeypatch.setattr(socket, "if_nametoindex", lambda _name: 7)
    return Answers


def message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(value), kind) + value
    return whole + bytes(-len(whole) % 4)


def link(name: bytes, master: int) -> bytes:
    names = attribute(3, name + b"\0") + attribute(10, struct.pack("=I", master))
    return message(16, 2, bytes(16) + names)


DONE = message(3, 2, bytes(4))


def test_ports_are_those_of_this_bridge_alone(answers: type[Answers]) -> None:
    answers.given = link(b"veth1", 7) + link(b"veth22", 8) + link(b"veth333", 7) + DONE
    assert ports_of("br") == {"veth1", "veth333"}


@pytest.mark.parametrize(
    "given",
    [
        link(b"veth1", 7)[:-4],
        message(16, 2 | 0x10, bytes(16) + attribute(3, b"veth1\0")) + DONE,
        link(b"veth1", 7) + message(3, 2 | 0x10, bytes(4)),
        message(2, 0, struct.pack("=i", -errno.EPERM) + bytes(16)),
        message(16, 2, bytes(16) + attribute(10, struct.pack("=I", 7))) + DONE,
    ],
    ids=["cut", "interrupted", "interrupted at its end", "refused", "without names"],
)
def test_half_an_answer_is_never_taken_for_the_ports(answers: type[Answers], given: bytes) -> None:
    """A port that is held to be gone would not be pinned any more."""
    answers.given = given
    with pytest.raises(OSError, match=r"."):
        ports_of("br")


def test_a_number_of_rules_that_is_not_told_is_an_error(answers: type[Answers]) -> None:
    answers.given = message(16, 0, bytes(4))
    with pytest.raises(OSError, match=r"."):
        rules_generation()
