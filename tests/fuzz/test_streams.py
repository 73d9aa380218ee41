"""Tar streams, and the texts by which users name things: read to their end, or refused, in bounded time."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.client.streams.tree_unpacking import only_file
from kohakuriver.host.auth import Rights
from kohakuriver.host.gateway.vps_access import SSH_PORT, Login, VpsAccess
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.names import check_environment_name, check_image_reference
from kohakuriver.models.spec.mounts import parse_mount
from kohakuriver.models.spec.ssh_keys import check_public_key
from kohakuriver.models.spec.targets import parse_target
from kohakuriver.streams.tar_end import TarEnd
from support.machine.time_limit import ends_soon
from support.messages.fuzz_settings import search
from support.messages.hostile_json import NUMBERS, TEXTS
from support.messages.tar_headers import extended, header, record

END = bytes(1024)
KINDS = [b"0", b"0", b"\0", b"1", b"2", b"5", b"6", b"7", b"L", b"K", b"S", b"x", b"X", b"g", b"M"]
NAMES = ["size", "size", "path", "mtime", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"]
ODD_SIZES = [b"-0000001000", b"+1", b"0o17", b"1_0", b" 7", b"8", b"\xff" * 12, b"\x80" + b"\xff" * 11]


def _as_base_256(size: int) -> bytes:
    return (size & ((1 << 96) - 1) | 1 << 95).to_bytes(12, "big")


_sizes = st.one_of(
    st.sampled_from([0, 1, 511, 512, 513, 1024]),
    st.integers(0, 8**11 - 1).map(lambda size: b"%011o\0" % size),
    st.integers(-(1 << 95), (1 << 95) - 1).map(_as_base_256),
    st.sampled_from(ODD_SIZES),
    st.binary(max_size=12),
)
_values = st.one_of(
    st.sampled_from([*NUMBERS, *(text for text in TEXTS if len(text) < 100)]),
    st.integers(-(1 << 70), 1 << 70).map(str),
    st.integers(-16, 16).map(lambda blocks: str(512 * blocks)),
)


@st.composite
def records(draw: Any) -> bytes:
    """Extended records, of which some lie about their own length."""
    made = b""
    for name, value in draw(st.lists(st.tuples(st.sampled_from(NAMES), _values), max_size=3)):
        sound = record(name, value)
        lie = draw(st.sampled_from([None] * 8 + [b"0", b"-1", b"2", b"9" * 30, b"x", b""]))
        made += sound if lie is None else lie + b" " + sound.split(b" ", 1)[1]
    return made


@st.composite
def entries(draw: Any) -> bytes:
    if draw(st.booleans()):
        return extended(draw(records()), draw(st.sampled_from([b"x", b"x", b"X", b"g"])))
    if not draw(st.integers(0, 3)):
        return extended(record(draw(st.sampled_from(NAMES)), draw(_values)), b"x") + header("f", 0, b"0")
    content = draw(st.sampled_from([b"", bytes(512), b"x" * 512, bytes(1536)]))
    name, kind = draw(st.sampled_from(["f", "d/f", "../f", ""])), draw(st.sampled_from(KINDS))
    size: int | bytes = draw(_sizes | st.just(len(content)))
    return header(name, size, kind) + bytes(content)


@st.composite
def streams(draw: Any) -> list[bytes]:
    """A stream in pieces."""
    whole = b"".join(draw(st.lists(entries(), min_size=2, max_size=6)))
    whole += draw(st.sampled_from([END, b"", END * 3]))
    step = draw(st.sampled_from([7, 512, 700, 1 << 20, 1 << 20, 1 << 20]))
    return [whole[place : place + step] for place in range(0, len(whole), step)]


@search
@given(streams())
def test_a_tar_stream_is_read_in_bounded_time_and_memory(pieces: list[bytes]) -> None:
    end = TarEnd()
    with ends_soon(), contextlib.suppress(KohakuRiverError):
        for piece in pieces:
            end.take(piece)
            assert (
                sum(len(held) for held in vars(end).values() if isinstance(held, (bytes, bytearray)))
                < 3 << 20
            )


@search
@given(streams())
def test_a_client_unpacks_a_stream_or_says_why_not(pieces: list[bytes]) -> None:
    with ends_soon(), contextlib.suppress(KohakuRiverError):
        for taken, _ in enumerate(only_file(iter(pieces))):
            assert taken < 10_000


_words = st.sampled_from([text.encode().decode("unicode_escape", "replace") for text in TEXTS]) | st.text(
    max_size=60
)
READERS = [
    parse_task_id,
    parse_target,
    parse_mount,
    check_environment_name,
    check_image_reference,
    check_public_key,
]


@search
@given(_words | st.sampled_from(NUMBERS))
def test_what_a_user_names_is_understood_or_refused(text: str) -> None:
    for read in READERS:
        with ends_soon(), contextlib.suppress(KohakuRiverError):
            read(text)


@search
@given(_words | st.sampled_from(NUMBERS), st.integers(-1, 70_000) | st.just(SSH_PORT))
def test_a_name_at_the_gateway_leads_somewhere_or_is_refused(name: str, port: int) -> None:
    access = VpsAccess(
        None, lambda _: None, lambda _: (), list, lambda _: None, lambda _a, _t: True, _nowhere, Rights()
    )
    with ends_soon(), contextlib.suppress(KohakuRiverError):
        access.admit(Login(None), name, port)
    with ends_soon(), contextlib.suppress(KohakuRiverError):
        access.login_of_token(name)


async def _nowhere(*_: Any) -> Any:
    raise AssertionError("nothing is opened here")
