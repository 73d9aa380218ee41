"""Public SSH keys as users give them: one key, no options, nothing smuggled in beside it.

The form is that of one line of an authorized_keys file (sshd(8)) without the options at its front, since they
can run commands. The type that is said must be the one in the key itself (RFC 4253, section 6.6).
"""

import base64
import binascii
import re

from kohakuriver.models.errors import InvalidInput

_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
_MAX_LENGTH = 16_384
_MIN_RSA_BYTES = 256
_COMMENT = re.compile(r"[ -~\u00a0-\uffff]{0,200}")
MAX_KEYS = 100


def check_public_key(text: str, field: str = "ssh_public_key") -> str:
    """Return the key as `type base64[ comment]`; raises InvalidInput for anything else."""
    line = text.strip(" \t\r\n")
    if any(ord(char) < 32 or ord(char) == 127 for char in line):
        raise InvalidInput("a public key is one line; give several keys one by one", field)
    kind, _, rest = line.partition(" ")
    if kind not in _TYPES or len(line) > _MAX_LENGTH:
        raise InvalidInput(
            f"this is not a public key of a known type: it must begin with one of {', '.join(_TYPES)}, "
            "without options before it (the file usually ends with .pub)",
            field,
        )
    encoded, _, comment = rest.strip().partition(" ")
    comment = comment.strip()
    parts = _parts(encoded, field)
    if parts[0] != kind.encode() or len(parts) < 2:
        raise InvalidInput(f"the key is not of the type {kind} that it says; copy it anew", field)
    if kind == "ssh-rsa" and len(parts[-1].lstrip(b"\0")) < _MIN_RSA_BYTES:
        raise InvalidInput("RSA keys need 2048 bits or more; make one with ssh-keygen -t ed25519", field)
    if _COMMENT.fullmatch(comment) is None:
        raise InvalidInput("the comment of the key holds characters that cannot be shown", field)
    return f"{kind} {encoded} {comment}".rstrip()


def _parts(encoded: str, field: str) -> list[bytes]:
    """The strings that a key is made of."""
    try:
        raw = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidInput("the key is not complete base64; copy the whole line", field) from error
    parts, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        if at + 4 + length > len(raw):
            raise InvalidInput("the key is cut off; copy the whole line", field)
        parts.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    if not parts:
        raise InvalidInput("the key is empty; copy the whole line", field)
    return parts
