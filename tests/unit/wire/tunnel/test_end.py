"""Two ends and what lies between them, in every order that hypothesis finds."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.tunnel.end import MAX_REFUSALS, MAX_UNREAD_BYTES, TunnelEnd
from kohakuriver.wire.tunnel.events import (
    Connected,
    Ended,
    Finished,
    Opened,
    Received,
    Reset,
    RoomAgain,
)
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, amount_payload, frame_of
from kohakuriver.wire.tunnel.table import Role, TunnelBounds
from kohakuriver.wire.tunnel.windows import FIRST_WINDOW_BYTES, LARGEST_WINDOW_BYTES

STREAMS = 5
BOUNDS = TunnelBounds(streams=STREAMS, opening=2, growth_bytes=96 << 10)


class _Side:
    """What one caller knows of one stream: what it sent, what it got."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.got = bytearray()
        self.taken = 0
        self.finished = self.heard_end = self.reset = False


class TwoEnds(RuleBasedStateMachine):
    """TCP with credit: what arrives is what was sent, in order, within the bounds, whatever is late."""

    def __init__(self) -> None:
        super().__init__()
        self.opener = TunnelEnd(Role.OPENS, credit=True, bounds=BOUNDS)
        self.asked = TunnelEnd(Role.IS_ASKED, credit=True, bounds=BOUNDS)
        self.inward: deque[bytes] = deque()
        self.outward: deque[bytes] = deque()
        self.sides: dict[TunnelEnd, dict[int, _Side]] = {self.opener: {}, self.asked: {}}
        self.counter = 0

    def _pick(self, data: Any, end: TunnelEnd) -> tuple[int, _Side] | None:
        sides = self.sides[end]
        return data.draw(st.sampled_from(sorted(sides.items()))) if sides else None

    @rule()
    def open(self) -> None:
        client_id = self.opener.open(Transport.TCP, 80)
        assert (client_id is None) == (len(self.opener) >= STREAMS and client_id is None)
        if client_id is not None:
            self.sides[self.opener][client_id] = _Side()

    @rule(data=st.data(), end=st.booleans(), size=st.sampled_from([1, 100, 16384, 40000, 70000]))
    def send(self, data: Any, end: bool, size: int) -> None:
        actor = self.opener if end else self.asked
        if (picked := self._pick(data, actor)) is None:
            return
        client_id, side = picked
        size = min(size, actor.room(client_id))
        if not size or side.finished or side.reset:
            return
        self.counter += 1
        piece = bytes((self.counter + n // 251) % 251 for n in range(size))
        actor.send(client_id, piece)
        side.sent += piece

    @rule(data=st.data(), end=st.booleans())
    def take(self, data: Any, end: bool) -> None:
        actor = self.opener if end else self.asked
        if (picked := self._pick(data, actor)) is None:
            return
        client_id, side = picked
        unread = len(side.got) - side.taken
        if unread and not side.reset:
            amount = data.draw(st.sampled_from(sorted({1, (unread + 1) // 2, unread})))
            actor.take(client_id, amount)
            side.taken += amount

    @rule(data=st.data(), end=st.booleans())
    def finish(self, data: Any, end: bool) -> None:
        actor = self.opener if end else self.asked
        if (picked := self._pick(data, actor)) and actor.room(picked[0]):
            actor.finish(picked[0])
            picked[1].finished = True

    @rule(data=st.data())
    def connected(self, data: Any) -> None:
        if picked := self._pick(data, self.asked):
            self.asked.connected(picked[0])

    @rule(data=st.data(), end=st.booleans())
    def reset(self, data: Any, end: bool) -> None:
        actor = self.opener if end else self.asked
        if picked := self._pick(data, actor):
            actor.reset(picked[0], "gone")
            picked[1].reset = True

    @rule(end=st.booleans(), many=st.integers(1, 6))
    def write(self, end: bool, many: int) -> None:
        actor, line = (self.opener, self.inward) if end else (self.asked, self.outward)
        for _ in range(many):
            if (written := actor.next_frame()) is not None:
                line.append(written[1])

    @precondition(lambda self: self.inward or self.outward)
    @rule(end=st.booleans(), many=st.integers(1, 6))
    def deliver(self, end: bool, many: int) -> None:
        line, actor, other = (
            (self.inward, self.asked, self.opener) if end else (self.outward, self.opener, self.asked)
        )
        for _ in range(min(many, len(line))):
            self._learn(actor, other, actor.receive(line.popleft()))

    def _learn(self, actor: TunnelEnd, other: TunnelEnd, event: object) -> None:
        sides = self.sides[actor]
        match event:
            case Opened(client_id=client_id):
                assert actor is self.asked
                assert client_id not in sides
                sides[client_id] = _Side()
            case Received(client_id=client_id, data=data):
                side = sides[client_id]
                assert not side.reset
                assert not side.heard_end
                side.got += data
                assert len(side.got) - side.taken <= LARGEST_WINDOW_BYTES
                assert self.sides[other][client_id].sent.startswith(side.got)
            case Finished(client_id=client_id):
                sides[client_id].heard_end = True
                assert self.sides[other][client_id].finished
                assert self.sides[other][client_id].sent == sides[client_id].got
            case Reset(client_id=client_id, sentence=sentence):
                assert sentence == "gone"
                assert not sides[client_id].reset
                sides[client_id].reset = True
            case Connected() | RoomAgain() | None:
                pass
            case Ended():
                raise AssertionError("a stream with credit ends one direction after the other")

    @invariant()
    def bounds_hold(self) -> None:
        for end in (self.opener, self.asked):
            assert len(end) <= STREAMS
            for client_id, side in self.sides[end].items():
                assert end.room(client_id) <= 65536
                assert not (side.reset and end.room(client_id))

    def teardown(self) -> None:
        """Once all is delivered, taken and finished, nothing is left at either end."""
        while self._settle():
            pass
        assert len(self.opener) == len(self.asked) == 0
        for client_id, side in self.sides[self.asked].items():
            opener_side = self.sides[self.opener][client_id]
            if not side.reset and not opener_side.reset:
                assert side.got == opener_side.sent
                assert opener_side.got == side.sent

    def _settle(self) -> int:
        for end, sides in self.sides.items():
            for client_id, side in sides.items():
                end.connected(client_id)
                if not side.reset:
                    end.take(client_id, len(side.got) - side.taken)
                    side.taken = len(side.got)
                    side.finished = True
                    end.finish(client_id)
        for end, line in ((self.opener, self.inward), (self.asked, self.outward)):
            while written := end.next_frame():
                line.append(written[1])
        moved = len(self.inward) + len(self.outward)
        while self.inward:
            self._learn(self.asked, self.opener, self.asked.receive(self.inward.popleft()))
        while self.outward:
            self._learn(self.opener, self.asked, self.opener.receive(self.outward.popleft()))
        return moved


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

_kinds = st.sampled_from([*FrameType, 0, 9, 255])
_frames = st.one_of(
    st.binary(max_size=16),
    st.builds(
        lambda kind, transport, client_id, port, payload: frame_of(
            Header(kind, transport, client_id, port), payload
        ),
        _kinds,
        st.integers(0, 1),
        st.integers(1, 6),
        st.sampled_from([0, 53, 80]),
        st.one_of(
            st.binary(max_size=6),
            st.integers(0, (1 << 32) - 1).map(amount_payload),
            st.sampled_from([16384, 32769, 65536]).map(bytes),
        ),
    ),
)


@given(
    st.sampled_from(Role), st.booleans(), st.lists(_frames, max_size=80), st.lists(st.booleans(), max_size=80)
)
@settings(deadline=None)
def test_no_input_makes_an_end_fail_or_grow_or_act_for_a_stream_that_is_not_there(
    role: Role, credit: bool, frames: list[bytes], writes: list[bool]
) -> None:
    end = TunnelEnd(role, credit=credit, bounds=BOUNDS)
    known: set[int] = {
        opened for _ in range(3) if role is Role.OPENS and (opened := end.open(Transport.TCP, 80))
    }
    held = dict.fromkeys(range(7), 0)
    for number, frame in enumerate(frames):
        try:
            event = end.receive(frame)
        except InvalidInput:
            return
        if isinstance(event, Opened):
            known.add(event.client_id)
            held[event.client_id] = 0
            end.connected(event.client_id)
        elif event is not None:
            assert event.client_id in known
        if isinstance(event, Received) and credit and len(event.data) != 0:
            held[event.client_id] += len(event.data)
        assert len(end) <= STREAMS
        if writes[number : number + 1] == [True]:
            end.next_frame()


@pytest.mark.parametrize("streams", [1, 16, 1000])
def test_what_waits_at_an_end_whose_readers_take_nothing_is_bounded(streams: int) -> None:
    end = TunnelEnd(Role.IS_ASKED, credit=True)
    got = 0
    for client_id in range(1, streams + 1):
        end.receive(frame_of(Header(FrameType.CONNECT, 0, client_id, 80)))
        end.connected(client_id)
        for _ in range(4):
            event = end.receive(frame_of(Header(FrameType.DATA, 0, client_id, 80), bytes(16384)))
            got += len(event.data) if isinstance(event, Received) else 0
    assert got == streams * FIRST_WINDOW_BYTES


def test_who_does_not_read_its_refusals_is_left() -> None:
    end = TunnelEnd(Role.IS_ASKED, credit=True, bounds=TunnelBounds(streams=0))
    for client_id in range(MAX_REFUSALS):
        assert end.receive(frame_of(Header(FrameType.CONNECT, 0, client_id, 80))) is None
    with pytest.raises(InvalidInput):
        end.receive(frame_of(Header(FrameType.CONNECT, 0, MAX_REFUSALS, 80)))


def test_without_credit_a_tunnel_is_read_on_when_its_readers_have_taken() -> None:
    end = TunnelEnd(Role.IS_ASKED, credit=False)
    end.receive(frame_of(Header(FrameType.CONNECT, 0, 1, 80)))
    while end.may_read:
        end.receive(frame_of(Header(FrameType.DATA, 0, 1, 80), bytes(65536)))
    end.take(1, MAX_UNREAD_BYTES)
    assert end.may_read
    end.receive(frame_of(Header(FrameType.DATA, 0, 1, 80), bytes(65536)))
    end.receive(frame_of(Header(FrameType.CLOSE, 0, 1, 80)))
    assert end.may_read


def test_more_than_there_is_room_for_is_the_callers_fault() -> None:
    end = TunnelEnd(Role.IS_ASKED, credit=True)
    end.receive(frame_of(Header(FrameType.CONNECT, 0, 1, 80)))
    with pytest.raises(ValueError, match="takes 0"):
        end.send(1, b"early")
    with pytest.raises(ValueError, match="taken of 0"):
        end.take(1, 1)


def test_a_stream_that_never_reads_holds_up_no_other() -> None:
    """One that has all its credit used waits for its WINDOW; the other's frames go."""
    end = TunnelEnd(Role.IS_ASKED, credit=True, bounds=TunnelBounds(frame_bytes=16 << 10))
    for client_id in (1, 2):
        end.receive(frame_of(Header(FrameType.CONNECT, 0, client_id, 80)))
        end.connected(client_id)
    while room := end.room(1):
        end.send(1, bytes(room))
    end.send(2, b"through")
    ids = []
    while written := end.next_frame():
        ids.append(written[0])
    assert ids == [1, 2, 1, 2, 1]
    assert end.room(1) == 0
    assert end.room(2) > 0


def test_ids_are_taken_once_in_a_long_time() -> None:
    end = TunnelEnd(Role.OPENS, credit=True)
    first = end.open(Transport.TCP, 80)
    assert first is not None
    end.reset(first, "not needed")
    assert end.open(Transport.TCP, 80) == first + 1
