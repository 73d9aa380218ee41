"""Tunnels from outside that share the connection of a sandbox: nobody meets, harms or slows another."""

import asyncio
from collections import deque
from collections.abc import Iterator
from functools import partial

import pytest
from structlog.testing import capture_logs

from kohakuriver.models.errors import InvalidInput, SwitchedOff, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.tunnels import outer_tunnel
from kohakuriver.runner.tunnels.held_bytes import HeldBytes
from kohakuriver.runner.tunnels.outer_tunnel import MAX_OPENING, OuterTunnel
from kohakuriver.runner.tunnels.sandbox_tunnels import CONFIRM_SECONDS, SandboxTunnels
from kohakuriver.wire.tunnel.events import Received, Reset
from kohakuriver.wire.tunnel.frames import FrameType, read_header
from kohakuriver.wire.tunnel.life import Life
from support.model.virtual_time import VirtualLoop
from support.tunnel.connected_sandbox import ONE, TASK, TWO, Place, frame


@pytest.fixture
def place() -> Iterator[Place]:
    loop = VirtualLoop()
    yield Place(loop)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.settle()
    loop.close()


def test_the_same_ids_of_two_tunnels_are_two_streams(place: Place) -> None:
    one, two = place.outer(), place.outer()
    for outer, data in ((one, b"one"), (two, b"two")):
        place.send(outer, frame(FrameType.CONNECT, 7), frame(FrameType.DATA, 7, data))
    first, second = place.client.opened
    got = [event for event in place.client.events if isinstance(event, Received)]
    assert {event.client_id: bytes(event.data) for event in got} == {first: b"one", second: b"two"}
    place.client.end.send(first, b"for one")
    place.client.speak()
    connected = frame(FrameType.CONNECTED, 7)
    assert place.got(one) == [connected, frame(FrameType.DATA, 7, b"for one")]
    assert place.got(two) == [connected]


@pytest.mark.parametrize(
    "breach",
    [b"", b"\1\0", frame(FrameType.DATA, 7, bytes(65537)), frame(FrameType.CONNECT, 7), b"\1\2" + bytes(6)],
)
def test_what_breaks_the_rules_never_reaches_the_sandbox(place: Place, breach: bytes) -> None:
    bad, good = place.outer(), place.outer()
    place.send(bad, frame(FrameType.CONNECT, 7))
    place.send(good, frame(FrameType.CONNECT, 7))
    before = len(place.client.took)
    assert isinstance(place.do(bad.send(breach)).exception(), InvalidInput)
    assert len(place.client.took) == before
    bad.close()
    place.send(good, frame(FrameType.DATA, 7, b"still"))
    assert place.client.closed is None
    assert place.got(good) == [frame(FrameType.CONNECTED, 7)]


def test_what_the_client_would_refuse_is_refused_before_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer, monkeys = place.outer(), place.outer()
    place.client.answers = False
    place.send(outer, frame(FrameType.CONNECT, 1, port=0))
    for number in range(MAX_OPENING + 1):
        place.send(monkeys, frame(FrameType.CONNECT, number))
    assert len(place.client.opened) == MAX_OPENING
    place.client.answers = True
    place.client.speak()
    place.loop.settle()
    monkeypatch.setattr(outer_tunnel, "MAX_STREAMS", MAX_OPENING)
    place.send(monkeys, frame(FrameType.CONNECT, 5000))
    refused = [read_header(each) for each in (*place.got(outer), *place.got(monkeys))]
    refusals = [header.client_id for header in refused if header.type == FrameType.ERROR]
    assert refusals == [1, MAX_OPENING, 5000]


def test_what_cannot_be_opened_is_said_in_the_log_and_no_other_end_is(place: Place) -> None:
    outer = place.outer()
    with capture_logs() as lines:
        place.send(outer, frame(FrameType.CONNECT, 1))
        place.client.end.reset(place.client.opened[0], "the service went away")
        place.client.speak()
        place.loop.settle()
        place.client.answers = False
        place.send(outer, frame(FrameType.CONNECT, 2), frame(FrameType.CONNECT, 3, port=0))
        sentence = b"nothing listens\non port 80 of the workload"
        place.client.says.put_nowait(frame(FrameType.ERROR, place.client.opened[1], sentence))
        place.loop.settle()
        for number in range(4, 200):
            place.send(outer, frame(FrameType.CONNECT, number, port=0))
    assert [(line["event"], line["task_id"], line["reason"]) for line in lines] == [
        ("stream_refused", TASK, "port 0 is none that anything listens on"),
        ("stream_refused", TASK, "nothing listens on port 80 of the workload"),
    ]


def test_frames_of_no_stream_and_of_no_known_type_go_nowhere(place: Place) -> None:
    outer = place.outer()
    kinds = (FrameType.DATA, FrameType.CLOSE, FrameType.ERROR, FrameType.WINDOW, FrameType.CONNECTED)
    place.send(outer, *(frame(kind, 9, bytes(4)) for kind in kinds), b"\x63\0" + bytes(6))
    place.send(outer, frame(FrameType.PING, 0))
    assert place.client.took == []
    assert [read_header(each).type for each in place.got(outer)] == [FrameType.PONG]
    for kind in (FrameType.DATA, FrameType.CONNECTED, FrameType.PONG):
        place.client.says.put_nowait(frame(kind, 12345))
    place.loop.settle()
    assert place.client.closed is None


def test_streams_that_ended_are_forgotten(place: Place) -> None:
    outer = place.outer()
    for number in range(5000):
        place.send(outer, frame(FrameType.CONNECT, number), frame(FrameType.CLOSE, number))
        place.client.end.finish(place.client.opened[-1])
        place.client.speak()
        place.loop.settle()
    flow = frame(FrameType.CONNECT, 1, udp=1)
    for _ in range(3):
        place.send(outer, flow, frame(FrameType.CLOSE, 1, udp=1))
    assert len(place.client.end) == 0
    assert len(place.client.opened) == 5003


def test_a_tunnel_that_ends_takes_its_streams_with_it_and_no_other(place: Place) -> None:
    gone, stays = place.outer(), place.outer()
    place.send(gone, *(frame(FrameType.CONNECT, number) for number in range(3)))
    place.send(stays, frame(FrameType.CONNECT, 1))
    lost = place.client.opened[:3]
    gone.close()
    place.loop.settle()
    assert [event.client_id for event in place.client.events if isinstance(event, Reset)] == lost
    assert len(place.client.end) == 1
    place.client.says.put_nowait(frame(FrameType.DATA, lost[0], b"late"))
    place.loop.settle()
    assert place.got(gone) == []
    assert isinstance(place.do(gone.send(frame(FrameType.PING, 0))).exception(), Unavailable)
    assert place.got(stays) == [frame(FrameType.CONNECTED, 1)]


@pytest.mark.parametrize("last", [FrameType.ERROR, FrameType.CLOSE])
def test_a_tunnel_that_ends_with_its_last_words_unwritten_leaves_no_stream(
    place: Place, last: FrameType
) -> None:
    place.client.takes = 2
    outer = place.outer()
    place.send(outer, frame(FrameType.CONNECT, 1), frame(FrameType.CONNECT, 2))
    for number in place.client.opened:
        place.client.end.finish(number)
    place.client.speak()
    place.send(outer, *[frame(last, number) for number in (1, 2)])
    outer.close()
    place.client.takes = None
    place.client.goes_on.set()
    place.loop.settle()
    assert len(place.client.opened) == 2
    assert len(place.client.end) == 0


def test_who_has_much_to_send_leaves_each_other_its_turn(place: Place) -> None:
    place.client.takes = 0
    loud, quiet = place.outer(), place.outer()
    loud_frames = deque([frame(FrameType.CONNECT, 1), *[frame(FrameType.DATA, 1, bytes(1000))] * 30])
    place.send(loud, *loud_frames)
    place.send(quiet, frame(FrameType.CONNECT, 2, port=81))
    place.client.takes = 4
    place.client.goes_on.set()
    place.loop.settle()
    assert 81 in [read_header(each).port for each in place.client.took]


def test_a_sandbox_that_takes_nothing_holds_each_tunnel_back(place: Place) -> None:
    place.client.takes = 1
    outer = place.outer()
    place.send(outer, frame(FrameType.CONNECT, 1))
    sending = [place.do(outer.send(frame(FrameType.DATA, 1, bytes(65536)))) for _ in range(6)]
    assert [each.done() for each in sending].count(False) > 0
    place.client.takes = None
    place.client.goes_on.set()
    place.loop.settle()
    assert all(each.done() for each in sending)


def test_who_does_not_read_is_ended_at_its_bound_and_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outer_tunnel, "MAX_HELD_BYTES", 100_000)
    deaf, other = place.outer(), place.outer()
    for outer in (deaf, other):
        place.send(outer, frame(FrameType.CONNECT, 1))
    first, second = place.client.opened
    for _ in range(20):
        place.client.says.put_nowait(frame(FrameType.DATA, first, bytes(16384)))
        place.client.says.put_nowait(frame(FrameType.DATA, second, b"x"))
    place.loop.settle()
    assert deaf.held_bytes == 0
    reading = place.do(deaf.receive())
    assert "not read" in str(reading.exception())
    assert len(place.got(other)) == 21
    assert place.client.closed is None


def test_where_all_hold_too_much_the_one_with_the_most_ends(place: Place) -> None:
    held = HeldBytes(300_000)
    place.tunnels = SandboxTunnels(partial(Life, ping_after=20, end_after=60), held=held)
    place.tunnels.learn(ONE)
    place.client = place.connect()
    most, less = place.outer(), place.outer()
    for outer in (most, less):
        place.send(outer, frame(FrameType.CONNECT, 1))
    first, second = place.client.opened
    for number, size in ((first, 16), (second, 1), (second, 1), (second, 1)):
        for _ in range(size):
            place.client.says.put_nowait(frame(FrameType.DATA, number, bytes(16384)))
    place.loop.settle()
    assert isinstance(place.do(most.receive()).exception(), Unavailable)
    assert len(place.got(less)) == 4
    most.close()
    less.close()
    assert held.total_bytes == 0


def test_many_that_hold_little_each_end_none_of_another_workload(place: Place) -> None:
    place.tunnels = SandboxTunnels(partial(Life, ping_after=20, end_after=60), held=HeldBytes(300_000))
    for sandbox in (ONE, TWO):
        place.tunnels.learn(sandbox)
    place.client, other = place.connect(), place.connect(TWO)
    victim = place.outer(TWO, TaskId(8))
    place.send(victim, frame(FrameType.CONNECT, 1))
    for _ in range(4):
        other.says.put_nowait(frame(FrameType.DATA, other.opened[0], bytes(16384)))
    many = [place.outer() for _ in range(20)]
    for outer in many:
        place.send(outer, frame(FrameType.CONNECT, 1), *[frame(FrameType.PING, 0)] * 250)
    assert [outer.held_bytes for outer in many].count(0) > 0
    assert len(place.got(victim)) == 5


def test_datagrams_that_are_not_read_are_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer_tunnel, "MAX_FLOW_BYTES", 10_000)
    outer = place.outer()
    place.send(outer, frame(FrameType.CONNECT, 1, udp=1))
    for _ in range(100):
        place.client.says.put_nowait(frame(FrameType.DATA, place.client.opened[0], bytes(1000), udp=1))
    place.loop.settle()
    assert 5 < len(place.got(outer)) < 20
    assert place.client.closed is None


def test_a_connection_that_is_lost_ends_what_went_over_it(place: Place) -> None:
    outer = place.outer()
    place.send(outer, frame(FrameType.CONNECT, 1))
    place.client.says.put_nowait(None)
    place.loop.settle()
    assert place.got(outer) == [frame(FrameType.CONNECTED, 1)]
    with pytest.raises(Unavailable, match="not connected"):
        place.outer()
    place.client = place.connect()
    place.send(place.outer(), frame(FrameType.CONNECT, 1))
    assert len(place.client.opened) == 1


def test_a_sandbox_without_a_secret_has_no_way_in(place: Place) -> None:
    place.loop.call_soon(place.tunnels.forget, ONE.id)
    place.loop.settle()
    with pytest.raises(SwitchedOff, match="TUNNEL_ENABLED"):
        place.outer()


def test_the_end_of_a_workload_is_confirmed_by_the_client_after_all_resets(place: Place) -> None:
    outer = place.outer()
    place.send(outer, *(frame(FrameType.CONNECT, number) for number in range(3)))
    place.client.answers = False
    ending = place.end_workload()
    assert len(place.client.end) == 0
    assert not ending.done()
    place.client.answers = True
    place.client.speak()
    place.loop.settle()
    assert ending.result() is True
    assert "has ended" in str(place.do(_drained(outer)).exception())


async def _drained(outer: OuterTunnel) -> None:
    while True:
        await outer.receive()


def test_where_nothing_was_opened_nothing_is_asked(place: Place) -> None:
    outer = place.outer()
    assert place.end_workload().result() is True
    assert place.client.took == []
    assert isinstance(place.do(outer.receive()).exception(), Unavailable)
    place.send(place.outer(), frame(FrameType.CONNECT, 1))
    assert place.end_workload().result() is True
    asked = len(place.client.took)
    assert place.end_workload().result() is True
    assert len(place.client.took) == asked


def test_a_client_that_does_not_confirm_is_not_waited_for_for_ever(place: Place) -> None:
    place.send(place.outer(), frame(FrameType.CONNECT, 1))
    place.client.answers = False
    ending = place.end_workload()
    place.loop.advance(CONFIRM_SECONDS + 0.1)
    assert ending.result() is False


def test_a_new_connection_says_that_streams_of_a_lost_one_are_over(place: Place) -> None:
    for comes_back in (True, False):
        place.send(place.outer(), frame(FrameType.CONNECT, 1))
        place.client.says.put_nowait(None)
        place.loop.settle()
        ending = place.end_workload()
        assert not ending.done()
        if comes_back:
            place.client = place.connect()
        place.loop.advance(CONFIRM_SECONDS + 0.1)
        assert ending.result() is comes_back


def test_a_stream_in_which_nothing_is_said_for_a_day_goes_on_afterwards(place: Place) -> None:
    outer = place.outer()
    place.send(outer, frame(FrameType.CONNECT, 7))
    for _ in range(24 * 60):
        place.loop.advance(60)
        place.client.speak()
        place.send(outer, frame(FrameType.PING, 0, port=0))
    place.client.end.send(place.client.opened[0], b"still here")
    place.client.speak()
    got = place.got(outer)
    assert got[0] == frame(FrameType.CONNECTED, 7)
    assert got[-1] == frame(FrameType.DATA, 7, b"still here")
    assert {read_header(each).type for each in got[1:-1]} == {FrameType.PONG}
