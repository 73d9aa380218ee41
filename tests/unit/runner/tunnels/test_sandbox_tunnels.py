"""Sandboxes that are connected: one connection each, while it lives and what it was proven by holds."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from kohakuriver.models.errors import SwitchedOff
from kohakuriver.runner.tunnels.arrivals import COMING_SECONDS, LATE_SECONDS
from kohakuriver.runner.tunnels.client_program import SWITCHED_OFF, TunnelClient
from kohakuriver.runner.tunnels.sandbox_tunnels import (
    SandboxIdentity,
    SandboxTunnels,
)
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of, read_header
from kohakuriver.wire.tunnel.life import Life
from support.model.virtual_time import VirtualLoop

ONE = SandboxIdentity("id-1", "kohakuriver-sandbox-1", "172.30.0.2", b"1" * 32)
OTHER = SandboxIdentity("id-2", "kohakuriver-sandbox-2", "172.30.0.3", b"2" * 32)
PING = frame_of(Header(FrameType.PING, Transport.TCP, 0, 0))


class Socket:
    """A client by hand. `stuck`: it takes nothing."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.heard: list[FrameType] = []
        self.closed: int | None = None
        self.stuck = False

    async def receive(self) -> str | bytes | None:
        return await self.says.get()

    async def send(self, message: str | bytes) -> None:
        if self.stuck:
            await asyncio.get_running_loop().create_future()
        assert isinstance(message, bytes)
        self.heard.append(FrameType(read_header(message).type))

    async def close(self, code: int) -> None:
        if self.stuck:
            await asyncio.get_running_loop().create_future()
        self.closed = code


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.settle()
    made.close()


@pytest.fixture
def tunnels(loop: VirtualLoop) -> SandboxTunnels:
    made = SandboxTunnels(partial(Life, ping_after=20, end_after=60), clock=loop.time)
    made.learn(ONE)
    made.learn(OTHER)
    return made


def test_a_client_that_answers_stays_for_a_day(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    socket = Socket()
    serving = loop.do(tunnels.serve(ONE, socket))
    for _ in range(24 * 60 * 3):
        loop.advance(20)
        socket.says.put_nowait(PING)
        loop.settle()
    assert tunnels.connected(ONE.id)
    assert FrameType.PING in socket.heard
    assert FrameType.PONG in socket.heard
    socket.says.put_nowait(None)
    loop.settle()
    assert serving.done()
    assert not tunnels.connected(ONE.id)


def test_a_silent_client_is_asked_and_then_given_up(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    socket = Socket()
    loop.do(tunnels.serve(ONE, socket))
    loop.advance(59)
    assert socket.heard == [FrameType.PING, FrameType.PING]
    assert tunnels.connected(ONE.id)
    loop.advance(2)
    assert socket.closed == 1012
    assert not tunnels.connected(ONE.id)


def test_a_client_that_takes_nothing_is_given_up(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    socket = Socket()
    socket.stuck = True
    serving = loop.do(tunnels.serve(ONE, socket))
    socket.says.put_nowait(PING)
    loop.advance(70)
    assert serving.done()
    assert not tunnels.connected(ONE.id)


@pytest.mark.parametrize(
    "breach", ["text", b"", b"\1\0", frame_of(Header(FrameType.CONNECT, Transport.TCP, 1, 1))]
)
def test_what_breaks_the_rules_ends_the_connection(
    loop: VirtualLoop, tunnels: SandboxTunnels, breach: str | bytes
) -> None:
    socket = Socket()
    loop.do(tunnels.serve(ONE, socket))
    socket.says.put_nowait(breach)
    loop.settle()
    assert socket.closed == 1008
    assert not tunnels.connected(ONE.id)


def test_a_newer_connection_ends_the_older_and_no_other(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    older, newer, others = Socket(), Socket(), Socket()
    for identity, socket in ((ONE, older), (OTHER, others), (ONE, newer)):
        loop.do(tunnels.serve(identity, socket))
    assert (older.closed, newer.closed, others.closed) == (1012, None, None)
    assert tunnels.connected(ONE.id)
    newer.says.put_nowait(None)
    loop.settle()
    assert not tunnels.connected(ONE.id)
    assert tunnels.connected(OTHER.id)


def test_a_connection_ends_with_what_it_was_proven_by(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    moved = replace(ONE, address="172.30.0.9")
    for change in (partial(tunnels.learn, moved), partial(tunnels.forget, ONE.id)):
        socket = Socket()
        tunnels.learn(ONE)
        loop.do(tunnels.serve(ONE, socket))
        loop.call_soon(tunnels.learn, replace(ONE))
        loop.settle()
        assert tunnels.connected(ONE.id)
        loop.call_soon(change)
        loop.settle()
        assert socket.closed == 1012
        assert not tunnels.connected(ONE.id)
    assert tunnels.named(ONE.name) is None
    assert tunnels.named(OTHER.name) == OTHER


def test_a_name_belongs_to_who_had_it_last(tunnels: SandboxTunnels) -> None:
    later = SandboxIdentity("id-3", ONE.name, "172.30.0.4", b"3" * 32)
    tunnels.learn(later)
    tunnels.forget(ONE.id)
    assert tunnels.named(ONE.name) is later


def test_a_client_may_come_back_while_its_lost_connection_is_still_being_closed(
    loop: VirtualLoop, tunnels: SandboxTunnels
) -> None:
    lost, back = Socket(), Socket()
    loop.do(tunnels.serve(ONE, lost))
    lost.stuck = True
    lost.says.put_nowait(None)
    loop.settle()
    serving = loop.do(tunnels.serve(ONE, back))
    loop.advance(5)
    assert not serving.done()
    assert tunnels.connected(ONE.id)


def test_the_client_of_a_new_sandbox_is_waited_for_a_moment(
    loop: VirtualLoop, tunnels: SandboxTunnels
) -> None:
    quick = loop.do(tunnels.arrivals.until_connected(ONE.id))
    assert not quick.done()
    loop.do(tunnels.serve(ONE, Socket()))
    assert quick.done()
    slow = loop.do(tunnels.arrivals.until_connected(OTHER.id))
    loop.advance(COMING_SECONDS)
    assert slow.done()


def test_nobody_waits_for_what_is_not_new_or_unknown(loop: VirtualLoop, tunnels: SandboxTunnels) -> None:
    lost = Socket()
    loop.do(tunnels.serve(ONE, lost))
    lost.says.put_nowait(None)
    loop.settle()
    assert loop.do(tunnels.arrivals.until_connected(ONE.id)).done()
    assert loop.do(tunnels.arrivals.until_connected("id-9")).done()
    loop.advance(COMING_SECONDS)
    assert loop.do(tunnels.arrivals.until_connected(OTHER.id)).done()


def test_where_clients_do_not_come_nobody_waits_until_one_does(
    loop: VirtualLoop, tunnels: SandboxTunnels
) -> None:
    loop.do(tunnels.arrivals.until_connected(ONE.id))
    loop.advance(COMING_SECONDS)
    later = replace(ONE, id="id-3", name="kohakuriver-sandbox-3")
    tunnels.learn(later)
    assert loop.do(tunnels.arrivals.until_connected(later.id)).done()
    loop.do(tunnels.serve(OTHER, Socket()))
    assert not loop.do(tunnels.arrivals.until_connected(later.id)).done()


def test_a_client_that_does_not_come_up_or_back_is_a_notice(
    loop: VirtualLoop, tunnels: SandboxTunnels
) -> None:
    lost = Socket()
    loop.do(tunnels.serve(ONE, lost))
    loop.advance(LATE_SECONDS - 1)
    assert tunnels.notices() == []
    lost.says.put_nowait(None)
    loop.advance(1)
    (late,) = tunnels.notices()
    assert OTHER.name in late
    assert ONE.name not in late
    loop.do(tunnels.serve(OTHER, Socket()))
    assert tunnels.notices() == []
    loop.advance(LATE_SECONDS)
    (late,) = tunnels.notices()
    assert ONE.name in late


def test_a_node_without_a_client_says_so_if_it_should_have_one() -> None:
    missing = SandboxTunnels(client=TunnelClient(None, "there is none", is_wanted=True))
    assert missing.notices() == ["there is none"]
    switched_off = SandboxTunnels(client=TunnelClient(None, SWITCHED_OFF))
    assert switched_off.notices() == []
    for tunnels, reason in ((missing, "there is none"), (switched_off, "TUNNEL_ENABLED")):
        with pytest.raises(SwitchedOff, match=reason):
            tunnels.check_offered()


def test_a_client_that_is_quicker_than_the_engine_is_known_once_its_sandbox_is(
    loop: VirtualLoop, tunnels: SandboxTunnels
) -> None:
    new = replace(ONE, id="id-3", name="kohakuriver-sandbox-3")
    with tunnels.arrivals.starting(new.name):
        asked = loop.do(tunnels.named_soon(new.name))
        assert not asked.done()
        tunnels.learn(new)
    loop.settle()
    assert asked.result() is new
    assert loop.do(tunnels.named_soon("kohakuriver-sandbox-9")).result() is None
    with tunnels.arrivals.starting("kohakuriver-sandbox-9"):
        never = loop.do(tunnels.named_soon("kohakuriver-sandbox-9"))
        loop.advance(60)
        assert never.result() is None
