"""A client without credit and a workload's tunnel with it: each hears what it understands, within bounds."""

import itertools
import tracemalloc
from collections.abc import Callable

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.streams.tunnels.without_credit import LINGER_SECONDS, MOST_HELD_BYTES, WithoutCredit
from kohakuriver.wire.tunnel.end import MAX_UNREAD_BYTES, TunnelEnd
from kohakuriver.wire.tunnel.events import Ended, Event, Finished, Opened, Received, Reset
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of, read_header
from kohakuriver.wire.tunnel.table import Role
from kohakuriver.wire.tunnel.windows import FIRST_WINDOW_BYTES

PORT = 8888


class Between:
    """A client of 1.0's kind, what translates, and the sandbox's client."""

    def __init__(self, transport: Transport = Transport.TCP) -> None:
        self.transport = transport
        self.client = TunnelEnd(Role.OPENS, credit=False)
        self.crossings = WithoutCredit(transport, PORT)
        self.inside = TunnelEnd(Role.IS_ASKED, credit=True)
        self.opened: list[Opened] = []
        self.at_service: list[Event] = []
        self.at_client: list[Event] = []
        self.service_reads = True
        self.client_reads = True
        self.to_runner: list[int] = []

    def open(self) -> int:
        client_id = self.client.open(Transport.TCP, 1)
        assert client_id is not None
        self.settle()
        return client_id

    def settle(self) -> None:
        moved = True
        while moved:
            moved = self._step(self.client.next_frame, self.crossings.from_client, self.may_read)
            moved |= self._step(self.crossings.to_runner, self._into_sandbox, True)
            moved |= self._step(self.inside.next_frame, self.crossings.from_runner, True)
            moved |= self._step(self.crossings.to_client, self._into_client, self.client_reads)

    @property
    def may_read(self) -> bool:
        return self.crossings.may_read_client

    def _step(self, give: Callable[[], object], take: Callable[[bytes], None], may: bool) -> bool:
        given = give() if may else None
        if given is None:
            return False
        take(given if isinstance(given, bytes) else given[1])  # type: ignore[index]
        return True

    def _into_sandbox(self, frame: bytes) -> None:
        self.to_runner.append(read_header(frame).type)
        event = self.inside.receive(frame)
        if isinstance(event, Opened):
            self.opened.append(event)
            self.inside.connected(event.client_id)
        elif event is not None:
            self.at_service.append(event)
            if isinstance(event, Received) and self.service_reads:
                self.inside.take(event.client_id, len(event.data))

    def _into_client(self, frame: bytes) -> None:
        assert read_header(frame).type != FrameType.WINDOW
        event = self.client.receive(frame)
        if event is not None:
            self.at_client.append(event)

    def say(self, client_id: int, data: bytes) -> None:
        self.client.send(client_id, data)
        self.settle()


def received(events: list[Event]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, Received))


def test_whatever_port_its_frames_name_it_reaches_the_one_it_was_let_in_for() -> None:
    between = Between()
    for _ in range(2):
        between.open()
    assert [(event.transport, event.port) for event in between.opened] == [(Transport.TCP, PORT)] * 2


def test_bytes_go_both_ways_beyond_any_window() -> None:
    between = Between()
    client_id = between.open()
    piece = bytes(range(256)) * 64
    for _ in range(40):
        between.say(client_id, piece)
        between.inside.send(between.opened[0].client_id, piece)
        between.settle()
    assert received(between.at_service) == piece * 40
    assert received(between.at_client) == piece * 40


def test_what_the_client_said_before_its_close_arrives_and_the_service_is_told_the_end() -> None:
    between = Between()
    client_id = between.open()
    between.say(client_id, b"last words")
    between.client.finish(client_id)
    between.settle()
    assert received(between.at_service) == b"last words"
    assert isinstance(between.at_service[-1], Finished)
    inner = between.opened[0].client_id
    between.inside.send(inner, b"nobody hears this" * 1000)
    between.inside.finish(inner)
    between.settle()
    assert len(between.inside) == 0


def test_the_end_of_the_service_ends_both_directions() -> None:
    between = Between()
    between.open()
    inner = between.opened[0].client_id
    between.inside.send(inner, b"answer")
    between.inside.finish(inner)
    between.settle()
    assert received(between.at_client) == b"answer"
    assert isinstance(between.at_client[-1], Ended)
    assert len(between.inside) == len(between.client) == 0


def test_a_service_that_does_not_end_is_reset_after_a_while() -> None:
    between = Between()
    client_id = between.open()
    between.client.finish(client_id)
    between.settle()
    for now in (100.0, 100.0 + LINGER_SECONDS):
        between.crossings.tick(now)
        between.settle()
    assert isinstance(between.at_service[-1], Reset)
    assert len(between.inside) == 0


def test_a_service_that_reads_nothing_has_the_client_held_back() -> None:
    between = Between()
    between.service_reads = False
    slow, other = between.open(), between.open()
    sent = 0
    while between.may_read:
        between.say(slow, bytes(16384))
        sent += 16384
    assert MAX_UNREAD_BYTES <= sent < MAX_UNREAD_BYTES + (256 << 10)
    between.client.reset(slow, "enough")
    between.crossings.from_client(frame_of(Header(FrameType.ERROR, 0, slow, 1)))
    assert between.may_read
    between.service_reads = True
    between.say(other, b"goes on")
    assert received(between.at_service).endswith(b"goes on")


def test_closing_again_and_again_what_a_service_does_not_read_stays_within_the_bound() -> None:
    between = Between()
    between.service_reads = False
    for _ in range(200):
        if not between.may_read:
            break
        client_id = between.open()
        for _ in range(8):
            between.say(client_id, bytes(16384))
        between.client.finish(client_id)
        between.settle()
    assert not between.may_read


def test_a_client_that_reads_nothing_holds_back_the_service_only_by_its_window() -> None:
    between = Between()
    between.open()
    between.client_reads = False
    inner = between.opened[0].client_id
    sent = 0
    while (room := between.inside.room(inner)) > 0:
        between.inside.send(inner, bytes(room))
        sent += room
        between.settle()
    assert sent < 4 << 20


def test_all_that_one_tunnel_may_have_waiting_stays_within_what_is_stated() -> None:
    between = Between()
    clients = [between.open() for _ in range(128)]
    between.service_reads = between.client_reads = False
    tracemalloc.start()
    try:
        moved = True
        while moved:
            moved = False
            for opened in between.opened:
                if room := between.inside.room(opened.client_id):
                    between.inside.send(opened.client_id, bytes(room))
                    moved = True
            between.settle()
        for client_id in clients:
            while between.may_read and between.client.room(client_id):
                between.say(client_id, bytes(4096))
        assert 6 << 20 < tracemalloc.get_traced_memory()[0] < MOST_HELD_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("by", ["client", "service"])
def test_frames_of_one_byte_that_nobody_reads_take_little_more_than_their_bytes(by: str) -> None:
    between = Between()
    between.service_reads = between.client_reads = False
    client_id = between.open()
    take, number, amount = between.crossings.from_client, client_id, 100_000
    if by == "service":
        take, number, amount = between.crossings.from_runner, between.opened[0].client_id, FIRST_WINDOW_BYTES
    tracemalloc.start()
    try:
        for _ in range(amount):
            take(frame_of(Header(FrameType.DATA, 0, number, PORT), b"x"))
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_came_in_small_pieces_arrives_in_order() -> None:
    between = Between()
    between.service_reads = False
    client_id = between.open()
    said = bytes(number % 251 for number in range(50_000))
    sizes = itertools.cycle((1, 2, 700, 16384, 3))
    begin = 0
    while begin < len(said):
        end = begin + next(sizes)
        between.say(client_id, said[begin:end])
        begin = end
    inner = between.opened[0].client_id
    taken = 0
    while (read := len(received(between.at_service))) > taken:
        between.inside.take(inner, read - taken)
        taken = read
        between.settle()
    assert received(between.at_service) == said


@pytest.mark.parametrize("by", ["client", "service"])
def test_a_reset_of_one_end_is_one_of_the_other(by: str) -> None:
    between = Between()
    client_id = between.open()
    end = between.client if by == "client" else between.inside
    end.reset(client_id if by == "client" else between.opened[0].client_id, "broken")
    between.settle()
    heard = between.at_service if by == "client" else between.at_client
    assert [event.sentence for event in heard if isinstance(event, Reset)] == ["broken"]
    assert len(between.inside) == len(between.client) == 0


def test_datagrams_stay_datagrams_and_idle_flows_end() -> None:
    between = Between(Transport.UDP)
    client_id = between.client.open(Transport.UDP, PORT)
    assert client_id is not None
    between.settle()
    for size in (1, 0, 1400):
        between.say(client_id, bytes(size))
    inner = between.opened[0].client_id
    between.inside.send(inner, b"answer")
    between.settle()
    assert [len(event.data) for event in between.at_service if isinstance(event, Received)] == [1, 0, 1400]
    assert received(between.at_client) == b"answer"
    for now in (1000.0, 1061.0):
        between.crossings.tick(now)
        between.settle()
    assert len(between.inside) == len(between.client) == 0


def test_what_is_no_frame_is_a_breach() -> None:
    for end in (Between().crossings.from_client, Between().crossings.from_runner):
        with pytest.raises(InvalidInput):
            end(b"\1")
