"""The credential of calls between a host and its runners, and the proof of the answers to them (protocol 2).

A call carries the header
`Authorization: KohakuRiver2 <node>:<epoch>:<sender>:<number>:<length>:<digest>:<mac>`. `length` and `digest`
(SHA-256, hex) are those of the body as it travels, which is sealed (`wire.trust.sealed_calls`); the MAC
(HMAC-SHA256, hex) covers all of these, the method and the path with its query. So a call is proven only by
its headers: the body of one that is not is never read. The key is the link key of the direction
(`wire.trust.identity.LinkKeys`), so a call cannot be turned round.

`epoch` is the receiver's, made anew with each of its processes and every few minutes; `sender` is made anew
with each process that calls, and `number` counts its calls. With them the receiver takes each call once
(`wire.trust.call_windows`).

The answer carries `KohakuRiver-Answer: <length>:<digest>:<mac>` under the key of the other direction. The MAC
covers the call's own credential, the status, the length and digest of the body, and `PROVEN_HEADERS`: who
gets the answer knows before it reads the body that it is from the peer, and belongs to this very call.

There are no time stamps, since clocks of nodes jump.
"""

import hashlib
import hmac
import re
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field

from kohakuriver.models.errors import Unauthenticated
from kohakuriver.wire.messages import PROTOCOL_VERSION

SCHEME = f"KohakuRiver{PROTOCOL_VERSION}"
ANSWER_HEADER = "KohakuRiver-Answer"
EPOCH_HEADER = "KohakuRiver-Epoch"
"""In a refusal: the epoch in which the receiver takes calls."""
PROVEN_HEADERS = ("Content-Type", "X-Log-Size", EPOCH_HEADER)
"""Headers of an answer that its proof covers; no other is believed."""

_NODE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"
_HEADER = re.compile(
    rf"{SCHEME} (?P<node>{_NODE}):(?P<epoch>[A-Za-z0-9_-]{{1,43}}):(?P<sender>[A-Za-z0-9_-]{{16,43}})"
    r":(?P<number>0|[1-9][0-9]{0,14}):(?P<length>0|[1-9][0-9]{0,11}):(?P<digest>[0-9a-f]{64})"
    r":(?P<mac>[0-9a-f]{64})"
)
_ANSWER = re.compile(r"(?P<length>0|[1-9][0-9]{0,11}):(?P<digest>[0-9a-f]{64}):(?P<mac>[0-9a-f]{64})")
_OTHER_PROTOCOL = re.compile(rf"KohakuRiver(?P<version>[0-9]{{0,4}}) (?P<node>{_NODE}):.*")
_MAX_HEADER = 640


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes each call another: the receiver's epoch, the caller's process, the number of the call."""

    epoch: str
    sender: str
    number: int


@dataclass(frozen=True, slots=True)
class BodyProof:
    """What was proven of a body that has not been read yet."""

    length: int
    digest: str

    @classmethod
    def of(cls, content: bytes) -> "BodyProof":
        return cls(len(content), hashlib.sha256(content).hexdigest())

    async def read(self, chunks: AsyncIterable[bytes]) -> bytes:
        """Read the body, and not a byte more than it has; raises Unauthenticated for any other."""
        content, digest = bytearray(), hashlib.sha256()
        async for chunk in chunks:
            if len(content) + len(chunk) > self.length:
                raise Unauthenticated("the body is longer than the one that was signed")
            digest.update(chunk)
            content += chunk
        if len(content) != self.length or digest.hexdigest() != self.digest:
            raise Unauthenticated("the body is not the one that was signed")
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was read, not yet proven. `text` is the header."""

    node: str
    stamp: Stamp
    body: BodyProof
    text: str = field(repr=False)


class OtherProtocol(Unauthenticated):
    """The credential is of a version that this one does not speak; `node` is a mere claim."""

    def __init__(self, node: str, version: int) -> None:
        self.node = node
        self.version = version
        super().__init__(other_protocol("this credential", version, "what sent it"))


def other_protocol(who: str, version: int, to_update: str) -> str:
    """The sentence about an end of another protocol, which says which end is to be updated."""
    if version < PROTOCOL_VERSION:
        return (
            f"{who} speaks the older protocol {version}, and here protocol {PROTOCOL_VERSION} is spoken; "
            f"update KohakuRiver of {to_update}"
        )
    return (
        f"{who} speaks the newer protocol {version}, and here protocol {PROTOCOL_VERSION} is spoken; "
        "update KohakuRiver here"
    )


def sign(key: bytes, node: str, stamp: Stamp, method: str, target: str, content: bytes) -> str:
    """Return the value of the Authorization header. `target` is the path with its query, as sent.

    `node` is the name of the node at whichever end of the link, never the host's. `content` is sealed.
    """
    body = BodyProof.of(content)
    mac = _call_mac(key, node, stamp, body, (method, target))
    return (
        f"{SCHEME} {node}:{stamp.epoch}:{stamp.sender}:{stamp.number}:{body.length}:{body.digest}:{mac.hex()}"
    )


def read_credential(header: str) -> Credential:
    """Read a credential, whose node is a mere claim so far.

    Raises Unauthenticated for another form, OtherProtocol for one of another version.
    """
    match = _HEADER.fullmatch(header) if len(header) <= _MAX_HEADER else None
    if match is None:
        other = _OTHER_PROTOCOL.fullmatch(header[:_MAX_HEADER])
        if other is not None and other["version"] != str(PROTOCOL_VERSION):
            raise OtherProtocol(other["node"], int(other["version"] or 1))
        raise Unauthenticated("this call needs the credential of an enrolled host or runner")
    stamp = Stamp(match["epoch"], match["sender"], int(match["number"]))
    return Credential(match["node"], stamp, BodyProof(int(match["length"]), match["digest"]), header)


def prove(key: bytes, credential: Credential, method: str, target: str) -> None:
    """Raise Unauthenticated unless it was made with this key for a call like this; its body is not needed."""
    wanted = _call_mac(key, credential.node, credential.stamp, credential.body, (method, target))
    if not hmac.compare_digest(wanted.hex(), credential.text[-64:]):
        raise Unauthenticated("the credential does not fit this request")


def sign_answer(key: bytes, credential: str, status: int, content: bytes, headers: Mapping[str, str]) -> str:
    """Return the value of `ANSWER_HEADER`. `key`: of the direction in which the answer travels."""
    body = BodyProof.of(content)
    lower = {name.lower(): value for name, value in headers.items()}
    return f"{body.length}:{body.digest}:{_answer_mac(key, credential, status, body, lower).hex()}"


def prove_answer(
    key: bytes, credential: str, status: int, headers: Mapping[str, str]
) -> tuple[BodyProof, Mapping[str, str]]:
    """Return what is proven of the body, and the proven headers, spelled as in `PROVEN_HEADERS`.

    Raises Unauthenticated unless the peer answered this very call with this status and these headers.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    match = _ANSWER.fullmatch(lower.get(ANSWER_HEADER.lower(), ""))
    if match is None:
        raise Unauthenticated("the answer carries no proof of who gave it")
    body = BodyProof(int(match["length"]), match["digest"])
    wanted = _answer_mac(key, credential, status, body, lower)
    if not hmac.compare_digest(wanted.hex(), match["mac"]):
        raise Unauthenticated("the answer is not from the peer that this machine enrolled with")
    return body, {name: lower[name.lower()] for name in PROVEN_HEADERS if name.lower() in lower}


def prf(key: bytes, purpose: str, fields: tuple[str, ...]) -> bytes:
    """HMAC over fields with their lengths, so that no two different lists look alike."""
    text = "".join([purpose, "\n", *[f"{len(each)}:{each}," for each in fields]])
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256")


def _call_mac(key: bytes, node: str, stamp: Stamp, body: BodyProof, fields: tuple[str, str]) -> bytes:
    stamped = (node, stamp.epoch, stamp.sender, str(stamp.number), str(body.length), body.digest)
    return prf(key, "kohakuriver call v2", (*stamped, *fields))


def _answer_mac(
    key: bytes, credential: str, status: int, body: BodyProof, headers: Mapping[str, str]
) -> bytes:
    proven = tuple(f"{name}:{headers[low]}" for name in PROVEN_HEADERS if (low := name.lower()) in headers)
    return prf(
        key, "kohakuriver answer v2", (credential, str(status), str(body.length), body.digest, *proven)
    )
