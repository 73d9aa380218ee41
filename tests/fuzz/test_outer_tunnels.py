"""Whatever two outer tunnels and a sandbox send: what they share holds, and no frame goes to the other."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.runner.tunnels.outer_tunnel import OuterTunnel
from kohakuriver.wire.tunnel.events import Opened
from kohakuriver.wire.tunnel.frames import FrameType, read_header
from support.messages.fuzz_settings import search
from support.model.virtual_time import VirtualLoop
from support.tunnel.connected_sandbox import Place, frame

MARKS = (b"of the first", b"of the second")
_KINDS = [FrameType.CONNECT] * 6 + [FrameType.DATA] * 6 + [FrameType.CLOSE] * 3 + list(FrameType)


@st.composite
def frames(draw: Any) -> bytes:
    """Mostly of few streams, so that they meet; some are none."""
    if draw(st.integers(0, 30)) == 0:
        return bytes(draw(st.binary(max_size=12)))
    kind = draw(st.sampled_from(_KINDS))
    client_id = draw(st.integers(0, 4))
    port = draw(st.sampled_from([0, 80, 80, 80, 443]))
    payload = draw(st.sampled_from([b"", bytes(4), b"\xff" * 4, b"\0\0\x80\0", bytes(40_000)]))
    return frame(kind, client_id, payload, port, draw(st.sampled_from([0, 0, 0, 1])))


_steps = st.lists(st.tuples(st.sampled_from([0, 0, 1, 1, 2]), frames()), max_size=60)


@search
@given(_steps)
def test_no_frame_from_outside_ends_what_others_share_or_reaches_them(steps: list[tuple[int, bytes]]) -> None:
    loop = VirtualLoop()
    try:
        _play(Place(loop), steps)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.settle()
        loop.close()


def _play(place: Place, steps: list[tuple[int, bytes]]) -> None:
    outers: list[OuterTunnel | None] = [place.outer(), place.outer()]
    owner: dict[int, int] = {}
    told = 0
    for who, sent in steps:
        if who == 2:
            _from_sandbox(place, sent)
            continue
        outer = outers[who]
        if outer is None:
            outer = outers[who] = place.outer()
        error = place.do(outer.send(sent)).exception()
        assert error is None or isinstance(error, InvalidInput | Unavailable), error
        if error is not None:
            outer.close()
            outers[who] = None
            place.loop.settle()
        for event in place.client.events[told:]:
            if isinstance(event, Opened):
                owner[event.client_id] = who
                place.client.end.send(event.client_id, MARKS[who])
        told = len(place.client.events)
        place.client.speak()
        place.loop.settle()
        _check(place, outers)
    assert place.client.closed is None
    assert place.end_workload().result() is True
    if not any(who == 2 for who, _ in steps):  # who can forge has its sandbox to itself
        assert len(place.client.end) == 0


def _from_sandbox(place: Place, sent: bytes) -> None:
    """What a workload puts in its client's place on the way, but for what ends the connection."""
    try:
        header = read_header(sent)
    except InvalidInput:
        return
    if header.type != FrameType.CONNECT:
        place.client.says.put_nowait(sent)
        place.loop.settle()


def _check(place: Place, outers: list[OuterTunnel | None]) -> None:
    for who, outer in enumerate(outers):
        if outer is not None:
            assert not any(MARKS[1 - who] in got for got in place.got(outer))
