"""Who a host or a runner is: an X25519 key pair, and the keys that two of them share.

The private key never leaves its file. Both ends derive the same two link keys (one for each direction), so
that a message sent one way can never be sent back the other way as an order. Text forms: a public key is
base64url without padding (43 characters); a fingerprint is `SHA256:` and the base64 of the digest of the raw
key, without padding, as SSH shows it.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kohakuriver.models.errors import InvalidInput
from kohakuriver.private_files import read_private, write_private

_KEY_TEXT = re.compile(r"[A-Za-z0-9_-]{43}")


class Side(Enum):
    """Which end of a link the owner of an identity is."""

    HOST = "host"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """Keys of one host and one node, 32 bytes each, named by the direction in which they sign requests."""

    host_to_node: bytes
    node_to_host: bytes

    def __repr__(self) -> str:
        return "LinkKeys(…)"


class Identity:
    """One key pair. Hold it in memory; make it with `generate` or `load_or_create`."""

    def __init__(self, private_key: bytes) -> None:
        """`private_key`: the 32 raw bytes."""
        self._private = X25519PrivateKey.from_private_bytes(private_key)
        self._public = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "Identity":
        return cls(os.urandom(32))

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Read the key at `path`, or make one there (mode 0600, complete or not there at all).

        Raises InvalidInput if the file is not a key, is a link, or is readable by others than its owner.
        """
        if not os.path.lexists(path):
            write_private(path, _to_text(os.urandom(32)).encode() + b"\n")
        text = read_private(path).strip()
        try:
            return cls(_from_text(text.decode("ascii")))
        except (InvalidInput, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{path} does not hold a key; restore it, or remove it and enrol this machine anew"
            ) from error

    @property
    def public_key(self) -> str:
        return _to_text(self._public)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.public_key)

    def link_keys(self, peer_public_key: str, side: Side) -> LinkKeys:
        """Derive the keys shared with the peer; `side` is the caller's own. InvalidInput for a bad key."""
        shared, peer = self._exchange(peer_public_key)
        host, node = (self._public, peer) if side is Side.HOST else (peer, self._public)
        return LinkKeys(
            host_to_node=_derive(shared, b"kohakuriver link v2 host to node" + host + node),
            node_to_host=_derive(shared, b"kohakuriver link v2 node to host" + host + node),
        )

    def shared_key(self, peer_public_key: str, purpose: bytes) -> bytes:
        """Derive the 32 bytes that both have only for this purpose. InvalidInput for a bad key.

        `purpose` begins with words that no other use begins with, and names both ends.
        """
        return _derive(self._exchange(peer_public_key)[0], purpose)

    def own_key(self, purpose: bytes) -> bytes:
        """Derive the 32 bytes that only the owner of this identity has, only for this purpose."""
        return _derive(self._private.private_bytes_raw(), purpose)

    def _exchange(self, peer_public_key: str) -> tuple[bytes, bytes]:
        """The secret shared with the peer, and the peer's raw key."""
        peer = _from_text(peer_public_key)
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer)), peer
        except ValueError as error:  # a point of small order gives the all-zero secret
            raise InvalidInput("that public key is not usable; it is not from an honest peer") from error

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint})"


def fingerprint_of(public_key: str) -> str:
    """Return the fingerprint of a public key in text form; raises InvalidInput for a bad key."""
    digest = hashlib.sha256(_from_text(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _derive(shared: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _from_text(text: str) -> bytes:
    """Read a key; one key has one text form, so texts can be compared."""
    if _KEY_TEXT.fullmatch(text) is None:
        raise InvalidInput(f"{text[:60]!r} is not a public key (43 characters of base64url)")
    raw = base64.urlsafe_b64decode(text + "=")
    if _to_text(raw) != text:
        raise InvalidInput(f"{text[:60]!r} is not a public key (43 characters of base64url)")
    return raw
