"""Sealed messages of one stream between host and runner; pure, no input or output.

The request that opens the stream is signed (`wire.trust.signing`); its Authorization header is `credential`.
The runner sends `CHALLENGE_BYTES` random bytes as the first message, in clear. From then on each end seals
what it sends under a key for its direction: HKDF-SHA256 (RFC 5869) of the link key of that direction, with
the challenge as salt and the credential in the context. The host's first message is an empty `HELLO`, before
which the runner does nothing: whoever replays a recorded request cannot make it. A message is sealed with
AES-256-GCM, its number in the stream as nonce (12 bytes, big-endian), one byte of kind before its content.
"""

import os
from dataclasses import dataclass
from enum import IntEnum

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NoCapacity,
    NotFound,
    ProgramMissing,
    ProgramNotExecutable,
    SwitchedOff,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from kohakuriver.wire.trust.identity import LinkKeys, Side

CHALLENGE_BYTES = 32
_MOST_MESSAGES = 1 << 48
_BY_CODE = {
    kind.code: kind
    for kind in (
        InvalidInput,
        SwitchedOff,
        Unauthenticated,
        Denied,
        NotFound,
        Conflict,
        TooLarge,
        NoCapacity,
        Unavailable,
        EngineFault,
        ProgramMissing,
        ProgramNotExecutable,
    )
}


class Kind(IntEnum):
    HELLO = 0
    TEXT = 1
    DATA = 2
    END = 3


class StreamEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a stream ends; `code` is that of an error, empty for an orderly end."""

    code: str = ""
    detail: str = ""

    @classmethod
    def of(cls, error: KohakuRiverError | None) -> "StreamEnd":
        return cls() if error is None else cls(error.code, str(error)[:4000])

    @property
    def error(self) -> KohakuRiverError | None:
        return _BY_CODE.get(self.code, EngineFault)(self.detail) if self.code else None


@dataclass(frozen=True, slots=True)
class Opened:
    """One message that was opened."""

    kind: Kind
    content: bytes


class Seals:
    """Both directions of one end. `seal` and `open` are called once for each message, in order."""

    def __init__(self, keys: LinkKeys, side: Side, credential: str, challenge: bytes) -> None:
        to_node = _key(keys.host_to_node, credential, challenge)
        to_host = _key(keys.node_to_host, credential, challenge)
        out, into = (to_node, to_host) if side is Side.HOST else (to_host, to_node)
        self._out, self._in = AESGCM(out), AESGCM(into)
        self._sent = self._received = 0

    def seal(self, kind: Kind, content: bytes = b"") -> bytes:
        nonce, self._sent = _nonce(self._sent), self._sent + 1
        return self._out.encrypt(nonce, bytes((kind,)) + content, None)

    def open(self, sealed: bytes) -> Opened:
        """Raises Unauthenticated for what the peer did not send as the next message of this stream."""
        try:
            plain = self._in.decrypt(_nonce(self._received), sealed, None)
            kind = Kind(plain[0])
        except (InvalidTag, ValueError, IndexError) as error:
            raise Unauthenticated("a message of this stream is not from the peer; it is closed") from error
        self._received += 1
        return Opened(kind, plain[1:])

    def end(self, error: KohakuRiverError | None) -> bytes:
        return self.seal(Kind.END, msgspec.json.encode(StreamEnd.of(error)))


def read_stream_end(opened: Opened) -> StreamEnd:
    try:
        return msgspec.json.decode(opened.content, type=StreamEnd)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable("the stream ended in a way that this version cannot read") from error


def new_challenge() -> bytes:
    return os.urandom(CHALLENGE_BYTES)


def _key(link_key: bytes, credential: str, challenge: bytes) -> bytes:
    if len(challenge) != CHALLENGE_BYTES:
        raise Unauthenticated("the runner opened the stream in a way that this version does not know")
    info = b"kohakuriver stream v1 " + credential.encode("latin-1")
    return HKDF(algorithm=SHA256(), length=32, salt=challenge, info=info).derive(link_key)


def _nonce(number: int) -> bytes:
    if number >= _MOST_MESSAGES:
        raise Unavailable("the stream has carried all that one key may; open another")
    return number.to_bytes(12, "big")
