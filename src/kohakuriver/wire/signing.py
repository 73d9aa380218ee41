"""The credential of requests between a host and its runners, and of the answers to them.

A request carries `Authorization: KohakuRiver <node>:<nonce>:<mac>`, where the MAC (HMAC-SHA256, hex) covers
the node's name, the nonce, the method, the path with its query and the SHA-256 of the body. The key is the
link key of the direction (`wire.identity.LinkKeys`), so a request cannot be turned round. The answer carries
`KohakuRiver-Answer: <mac>` under the key of the other direction, over the request's own credential, the
status and the body: who gets the answer knows that it is from the peer and belongs to this very request.

There are no time stamps, since clocks of nodes jump. A recorded request may be played again, which changes
nothing: orders are fenced by task, attempt and order number, reports by attempt and revision, registrations
by the session that they use up, heartbeats by boot, session and revision, and an answer to a replayed
request is of use to nobody without the link key. The content is authentic, not secret: links over networks
that others can read belong in a VPN.
"""

import hashlib
import hmac
import re
import secrets

from kohakuriver.models.errors import Unauthenticated

SCHEME = "KohakuRiver"
ANSWER_HEADER = "KohakuRiver-Answer"

_HEADER = re.compile(
    rf"{SCHEME} (?P<node>[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,251}}[A-Za-z0-9])?)"
    r":(?P<nonce>[A-Za-z0-9_-]{16,64}):(?P<mac>[0-9a-f]{64})"
)
_MAX_HEADER = 512


def sign(key: bytes, node: str, method: str, target: str, body: bytes, nonce: str | None = None) -> str:
    """Return the value of the Authorization header. `target` is the path with its query, as sent.

    `node` is the name of the node at whichever end of the link, never the host's.
    """
    nonce = secrets.token_urlsafe(18) if nonce is None else nonce
    return f"{SCHEME} {node}:{nonce}:{_request_mac(key, (node, nonce, method, target), body)}"


def signer_of(header: str) -> str:
    """Return the node that a credential names, not yet verified; raises Unauthenticated for another form."""
    return _parse(header)["node"]


def verify(header: str, key: bytes, method: str, target: str, body: bytes) -> None:
    """Raise Unauthenticated unless the credential was made with this key for exactly this request."""
    parts = _parse(header)
    wanted = _request_mac(key, (parts["node"], parts["nonce"], method, target), body)
    if not hmac.compare_digest(wanted, parts["mac"]):
        raise Unauthenticated("the credential does not fit this request")


def sign_answer(key: bytes, request_header: str, status: int, body: bytes) -> str:
    """Return the value of `ANSWER_HEADER`. `key`: of the direction in which the answer travels."""
    return _mac(key, b"kohakuriver answer v1", (request_header, str(status)), body)


def verify_answer(answer_header: str, key: bytes, request_header: str, status: int, body: bytes) -> None:
    """Raise Unauthenticated unless the peer answered this very request with this status and body."""
    wanted = sign_answer(key, request_header, status, body)
    if not hmac.compare_digest(wanted.encode(), answer_header.encode("utf-8", "replace")):
        raise Unauthenticated("the answer is not from the peer that this machine enrolled with")


def _parse(header: str) -> re.Match[str]:
    match = _HEADER.fullmatch(header) if len(header) <= _MAX_HEADER else None
    if match is None:
        raise Unauthenticated("this call needs the credential of an enrolled host or runner")
    return match


def _request_mac(key: bytes, fields: tuple[str, ...], body: bytes) -> str:
    return _mac(key, b"kohakuriver request v1", fields, body)


def _mac(key: bytes, purpose: bytes, fields: tuple[str, ...], body: bytes) -> str:
    """HMAC over length-prefixed fields, so that no two different lists look alike."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in (purpose, *(field.encode("utf-8", "surrogateescape") for field in fields)):
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    mac.update(hashlib.sha256(body).digest())
    return mac.hexdigest()
