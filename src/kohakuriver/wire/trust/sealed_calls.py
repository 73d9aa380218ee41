"""Calls between host and runner and their answers, sealed: the same at both ends; pure, no input or output.

Bodies are sealed with AES-256-GCM. For each process that calls there are two keys in each epoch, for calls
and for answers: HMAC-SHA256 of the direction's link key over node, epoch and caller (HKDF-Expand of RFC
5869 in one block; the link key is the pseudorandom key). Before the sealed body stand the 12 random bytes
of its nonce: an epoch is too short for one to come again, and not even a process that was copied with its
memory (a restored virtual machine) seals twice alike. The number of the call is sealed in, so that no body
can stand in for that of another call. An empty body is sent empty. In clear are method, path and query,
status, headers, and sizes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kohakuriver.models.errors import KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.wire.trust.call_windows import CallWindow, Verdict, new_name
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.signing import (
    EPOCH_HEADER,
    BodyProof,
    Credential,
    Stamp,
    prf,
    prove,
    prove_answer,
    sign,
    sign_answer,
)

SEAL_BYTES = 28
"""What sealing adds to a body."""
MOST_TRIES = 3
"""How often a call is made to a peer that says each time that it has begun anew."""
_NONCE_BYTES = 12
_NO_EPOCH = "-"


class _Seals:
    """The two keys of one process that calls, within one epoch."""

    def __init__(self, call_key: bytes, answer_key: bytes, node: str, stamp: Stamp) -> None:
        fields = (node, stamp.epoch, stamp.sender)
        self.calls = AESGCM(prf(call_key, "kohakuriver call bodies v2", fields))
        self.answers = AESGCM(prf(answer_key, "kohakuriver answer bodies v2", fields))


@dataclass(frozen=True, slots=True)
class SealedCall:
    """One call, ready to be sent once."""

    node: str
    credential: str
    content: bytes = field(repr=False)
    number: int
    seals: _Seals = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProvenAnswer:
    """An answer whose body has not been read yet. `headers`: the proven ones."""

    status: int
    body: BodyProof
    headers: Mapping[str, str]


class Caller:
    """One end of links as it calls; remembers the epochs of its peers. One for each connection pool."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._sender = new_name()
        self._numbers: dict[str, int] = {}
        self._epochs: dict[str, str] = {}
        self._seals: dict[str, tuple[str, LinkKeys, _Seals]] = {}

    def call(self, node: str, keys: LinkKeys, method: str, target: str, body: bytes = b"") -> SealedCall:
        """Make a call, good for being sent once. `target` is the path with its query, as sent."""
        number = self._numbers[node] = self._numbers.get(node, 0) + 1
        stamp = Stamp(self._epochs.get(node, _NO_EPOCH), self._sender, number)
        seals = self._seals_of(node, stamp, keys)
        content = _seal(seals.calls, number, body)
        credential = sign(self._keys(keys)[0], node, stamp, method, target, content)
        return SealedCall(node, credential, content, number, seals)

    def prove(
        self, call: SealedCall, keys: LinkKeys, status: int, headers: Mapping[str, str], max_bytes: int
    ) -> ProvenAnswer:
        """Judge an answer by its headers, so that no other is read.

        Raises Unauthenticated for one that the peer did not give to this call, Unavailable for one that is
        larger than `max_bytes` (as it was before it was sealed).
        """
        body, proven = prove_answer(self._keys(keys)[1], call.credential, status, headers)
        if "content-encoding" in {name.lower() for name in headers}:
            raise Unavailable("the answer is packed in a way that nobody asked for; it is not read")
        if body.length > max_bytes + SEAL_BYTES:
            raise Unavailable(f"the answer is larger than the {max_bytes} bytes that this call may return")
        return ProvenAnswer(status, body, proven)

    def must_call_again(self, call: SealedCall, answer: ProvenAnswer) -> bool:
        """Tell whether the peer did not take the call since it is in another epoch, and remember that one."""
        epoch = answer.headers.get(EPOCH_HEADER)
        if answer.status != Unauthenticated.http_status or epoch is None:
            return False
        self._epochs[call.node] = epoch
        return True

    def open(self, call: SealedCall, answer: ProvenAnswer, content: bytes) -> bytes:
        """Return the body of a proven answer; raises Unauthenticated for any other."""
        return _open(call.seals.answers, call.number, answer.body, content)

    def _seals_of(self, node: str, stamp: Stamp, keys: LinkKeys) -> _Seals:
        kept = self._seals.get(node)
        if kept is None or kept[0] != stamp.epoch or kept[1] != keys:
            kept = self._seals[node] = stamp.epoch, keys, _Seals(*self._keys(keys), node, stamp)
        return kept[2]

    def _keys(self, keys: LinkKeys) -> tuple[bytes, bytes]:
        """The key of calls, and that of answers."""
        if self._side is Side.HOST:
            return keys.host_to_node, keys.node_to_host
        return keys.node_to_host, keys.host_to_node


class NotTaken(Unauthenticated):
    """A proven call that is not taken; `headers` go with the refusal, which is to be proven too."""

    def __init__(self, sentence: str, headers: Mapping[str, str]) -> None:
        super().__init__(sentence)
        self.headers = headers


class Received:
    """One call at the receiver's end, proven by its headers. Make it with `receive_call`."""

    def __init__(self, credential: Credential, call_key: bytes, answer_key: bytes) -> None:
        self.credential = credential
        self._call_key = call_key
        self._answer_key = answer_key
        self._kept: _Seals | None = None

    def take(self, window: CallWindow, now: float) -> None:
        """Raise NotTaken unless this call is made in this epoch and comes for the first time."""
        verdict = window.judge(self.credential.stamp, now)
        if verdict is Verdict.OTHER_EPOCH:
            headers = {EPOCH_HEADER: window.epoch}
            raise NotTaken("that call was made for an earlier time of this end; make it again", headers)
        if verdict is Verdict.USED:
            raise NotTaken("this call was made before; it is not taken again", {})
        self._kept = window.kept(self.credential.stamp.sender, self._made)

    def open(self, content: bytes) -> bytes:
        """Return the body of the call; raises Unauthenticated if it is not the one that was signed."""
        return _open(self._seals.calls, self.credential.stamp.number, self.credential.body, content)

    def seal(self, status: int, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """Return the body of the answer as it is to travel, and the value of `signing.ANSWER_HEADER`."""
        content = _seal(self._seals.answers, self.credential.stamp.number, body)
        return content, sign_answer(self._answer_key, self.credential.text, status, content, headers)

    @property
    def _seals(self) -> _Seals:
        """Kept for as long as the epoch lasts; those of a call that is not taken are made only for it."""
        if self._kept is None:
            self._kept = self._made()
        return self._kept

    def _made(self) -> _Seals:
        return _Seals(self._call_key, self._answer_key, self.credential.node, self.credential.stamp)


def receive_call(side: Side, keys: LinkKeys, credential: Credential, method: str, target: str) -> Received:
    """Prove a call by its headers; `side` is the receiver's. Raises Unauthenticated."""
    call_key, answer_key = keys.node_to_host, keys.host_to_node
    if side is Side.NODE:
        call_key, answer_key = answer_key, call_key
    prove(call_key, credential, method, target)
    return Received(credential, call_key, answer_key)


def unproven(who: str, status: int, error: KohakuRiverError) -> Unavailable:
    """What to say of an answer that the peer did not prove."""
    hint = ""
    if status == Unauthenticated.http_status:
        hint = ", or it is of another version of KohakuRiver and is to be updated"
    return Unavailable(f"what answers in place of {who} is not proven to be it{hint}: {error}")


def _seal(key: AESGCM, number: int, body: bytes) -> bytes:
    if not body:
        return b""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, body, number.to_bytes(8, "big"))


def _open(key: AESGCM, number: int, proof: BodyProof, content: bytes) -> bytes:
    if len(content) != proof.length:
        raise Unauthenticated("the body is not the one that was signed")
    if not content:
        return b""
    view = memoryview(content)
    try:
        return key.decrypt(view[:_NONCE_BYTES], view[_NONCE_BYTES:], number.to_bytes(8, "big"))
    except (InvalidTag, ValueError) as error:
        raise Unauthenticated("the body cannot be opened") from error
