"""New ed25519 key pairs in OpenSSH's text forms: for a VPS's own sshd, and for users who ask for one."""

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)


@dataclass(frozen=True, slots=True)
class SshKeyPair:
    """`private`: the text of the file; `public`: `type base64 comment`."""

    public: str
    private: str = field(repr=False)


def new_key_pair(comment: str) -> SshKeyPair:
    """`comment` is a name for people, at the end of the public key; it may be empty."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return SshKeyPair(f"{_public_text(key)} {comment}".rstrip(), private)


def load_key_pair(private: str) -> SshKeyPair:
    """Read what `new_key_pair` made; raises ValueError for anything else."""
    try:
        key = load_ssh_private_key(private.encode(), password=None)
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(f"not a key without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 key")  # noqa: TRY004 - the text is at fault, not the caller
    return SshKeyPair(_public_text(key), private)


def _public_text(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
