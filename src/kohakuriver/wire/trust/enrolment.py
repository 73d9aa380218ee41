"""How a runner and a host come to trust each other: join tokens and the proofs made with them.

A token is `krj1.<id>.<secret>.<host fingerprint>`, the fingerprint in the alphabet of base64url. The runner
checks the host's key against it before it says anything; then each end proves that it knows the secret, which
itself never travels. Proofs bind the node's name and both public keys, so a proof that someone sees is of no
use with other keys.
"""

import hmac
import re
import secrets
from dataclasses import dataclass, field

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.trust.identity import Identity, Side, fingerprint_of

_TO_URL = str.maketrans("+/", "-_")
_FROM_URL = str.maketrans("-_", "+/")
_TOKEN = re.compile(
    r"krj1\.(?P<id>[A-Za-z0-9_-]{8,32})\.(?P<secret>[A-Za-z0-9_-]{32,86})"
    r"\.(?P<fingerprint>SHA256:[A-Za-z0-9_-]{43})"
)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A right to join, once. `token_id` may be shown and stored; `secret` is shown once."""

    token_id: str
    secret: str = field(repr=False)
    host_fingerprint: str

    @classmethod
    def generate(cls, host_fingerprint: str) -> "JoinToken":
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32), host_fingerprint)

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Read a token; raises InvalidInput, whose sentence never holds the token itself."""
        match = _TOKEN.fullmatch(text.strip()) if len(text) <= 300 else None
        if match is None:
            raise InvalidInput(
                "that is not a join token (krj1.<id>.<secret>.<host fingerprint>); "
                "`kohakuriver node join-token` on the host's machine makes one"
            )
        return cls(match["id"], match["secret"], match["fingerprint"].translate(_FROM_URL))

    def format(self) -> str:
        return f"krj1.{self.token_id}.{self.secret}.{self.host_fingerprint.translate(_TO_URL)}"

    def is_for_host(self, host_public_key: str) -> bool:
        """Tell whether the token was made by the host with this key; InvalidInput for a bad key."""
        return hmac.compare_digest(self.host_fingerprint, fingerprint_of(host_public_key))


def join_proof(secret: str, hostname: str, node_public: str, host_public: str) -> str:
    """What the runner sends: it knows the secret, and wants this host to know it under this name and key."""
    return _proof(secret, "node", hostname, node_public, host_public)


def host_proof(secret: str, hostname: str, node_public: str, host_public: str) -> str:
    """What the host answers: it knows the secret, and took this node in with this key."""
    return _proof(secret, "host", hostname, node_public, host_public)


def approval_proof(own: Identity, peer_public: str, side: Side, hostname: str, cluster_id: str) -> str:
    """What the host answers to a node that it has taken in, and the node compares; `own` is `side`'s.

    Nobody can make it without one of the two private keys, so nobody else can say that the node is approved.
    """
    host, node = (own.public_key, peer_public) if side is Side.HOST else (peer_public, own.public_key)
    key = own.shared_key(peer_public, f"kohakuriver approval v1 {host} {node}".encode())
    text = "\n".join((hostname, cluster_id))
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def proofs_equal(one: str | None, other: str) -> bool:
    """Compare in constant time; a missing proof equals none."""
    return one is not None and hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _proof(secret: str, side: str, hostname: str, node_public: str, host_public: str) -> str:
    # None of the fields can hold a newline; a name that does would not be accepted as a node's name.
    text = "\n".join(("kohakuriver join v1", side, hostname, node_public, host_public))
    return hmac.new(secret.encode(), text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()
