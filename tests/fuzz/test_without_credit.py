"""What stands between a client without credit and a runner: no frame of either makes it fail or grow."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.streams.tunnels.without_credit import WithoutCredit
from kohakuriver.wire.tunnel.end import MAX_UNREAD_BYTES
from kohakuriver.wire.tunnel.frames import FrameType, Transport, amount_payload
from support.messages.fuzz_settings import search
from support.tunnel.connected_sandbox import frame

_KINDS = [FrameType.CONNECT] * 5 + [FrameType.DATA] * 8 + [FrameType.CONNECTED] * 4 + list(FrameType)
_LARGEST_HELD = MAX_UNREAD_BYTES + (64 << 10)


@st.composite
def frames(draw: Any) -> bytes:
    if draw(st.integers(0, 40)) == 0:
        return bytes(draw(st.binary(max_size=12)))
    payload = draw(st.sampled_from([b"", b"x", bytes(16_384), bytes(65_536), amount_payload(50_000)]))
    kind, client_id = draw(st.sampled_from(_KINDS)), draw(st.integers(0, 4))
    return frame(
        kind, client_id, payload, draw(st.sampled_from([0, 80])), draw(st.sampled_from([0, 0, 0, 1]))
    )


_steps = st.lists(
    st.tuples(st.sampled_from(["client", "runner", "to client", "to runner", "tick"]), frames()), max_size=80
)


@search
@given(st.sampled_from(Transport), _steps)
def test_it_only_ever_says_that_a_frame_breaks_the_rules(
    transport: Transport, steps: list[tuple[str, bytes]]
) -> None:
    crossings, now = WithoutCredit(transport, 80), 0.0
    for what, sent in steps:
        now += 7.0
        try:
            _do(crossings, what, sent, now)
        except InvalidInput:
            break
        assert crossings.waiting_bytes <= _LARGEST_HELD


def _do(crossings: WithoutCredit, what: str, sent: bytes, now: float) -> None:
    match what:
        case "client" if crossings.may_read_client:
            crossings.from_client(sent)
        case "runner":
            crossings.from_runner(sent)
        case "to client":
            crossings.to_client()
        case "to runner":
            crossings.to_runner()
        case "tick":
            crossings.tick(now)
