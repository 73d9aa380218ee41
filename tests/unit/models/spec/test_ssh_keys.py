"""Public keys that users give: one key each, and nothing that sshd would take for more."""

import base64
import struct

import pytest

from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.ssh_keys import check_public_key

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbhlrtnfwdJuCYfl1gX3ZyPlAzqNo1QTDsdTcaibhIj ann@lab"
KIND, ENCODED, _ = PUBLIC.split(" ")


def encoded(*parts: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


def test_a_key_is_taken_with_and_without_a_comment() -> None:
    assert check_public_key(f"  {PUBLIC}\n") == PUBLIC
    assert check_public_key(f"{KIND} {ENCODED}") == f"{KIND} {ENCODED}"
    assert check_public_key(f"{KIND}  {ENCODED}   two words ") == f"{KIND} {ENCODED} two words"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        f"{KIND} {ENCODED[:-8]}",
        f"{KIND} {ENCODED}\nssh-ed25519 {ENCODED}",
        f"{KIND} {ENCODED} x\ncommand",
        f"{KIND} {ENCODED} x\r{KIND}",
        f"{KIND} {ENCODED} \0",
        f'command="rm -rf /" {PUBLIC}',
        f"no-pty {PUBLIC}",
        f"cert-authority {PUBLIC}",
        f"restrict,{PUBLIC}",
        f"ssh-rsa {ENCODED}",
        f"ssh-dss {encoded(b'ssh-dss', b'1')}",
        f"ssh-rsa {encoded(b'ssh-rsa', b'3', bytes(100) + b'1' * 100)}",
        f"{KIND} {encoded(b'ssh-ed25519')}",
        f"{KIND} !!!! comment",
        f"{KIND} {ENCODED} \x1b[31mred",
        f"{KIND} {'A' * 20_000}",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "# comment",
        f"\u00a0{PUBLIC}",
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInput, match="key"):
        check_public_key(text)


def test_a_new_pair_belongs_together_and_hides_its_private_half() -> None:
    pair = new_key_pair("lab")
    assert check_public_key(pair.public) == pair.public
    assert pair.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert "PRIVATE" not in repr(pair)
