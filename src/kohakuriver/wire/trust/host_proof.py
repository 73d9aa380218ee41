"""How a host proves to whoever connects to it that it has the private key of its fingerprint.

The client sends a public key that it made for this one connection. The host answers with its own public key
and a MAC under a key that both derive from the two (X25519, HKDF-SHA256). Only who has the host's private key
can make that MAC, and a recorded one fits no other question. The key is derived under a purpose of its own,
so an answer is worth nothing as a link key of a node, whatever public key was sent.

Over plain HTTP the proof says who is reached at the other end of the connection, not who carries it: whoever
sits on the way and passes the bytes on to the host is passed through, and reads the token. HTTPS is for that.
"""

import hmac
from typing import Protocol

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.trust.identity import Identity, fingerprint_of

PROVE_PATH = "/api/prove"
MAX_QUESTION_BYTES = 512
MAX_ANSWER_BYTES = 1024

_PURPOSE = b"kohakuriver host proof v1 "


class ProofQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """`public_key`: made for this question, in the text form of `wire.trust.identity`."""

    public_key: str


class ProofAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The host's public key, and the proof that it holds the private one (hex)."""

    host_public_key: str
    proof: str


class Prover(Protocol):
    """What an `Identity` offers for this; the host's control loop holds one."""

    @property
    def public_key(self) -> str: ...

    def shared_key(self, peer_public_key: str, purpose: bytes) -> bytes: ...


def answer_question(host: Prover, question: ProofQuestion) -> ProofAnswer:
    """Prove who this host is; raises InvalidInput for a public key that is none."""
    key = host.shared_key(question.public_key, _purpose(host.public_key, question.public_key))
    return ProofAnswer(host_public_key=host.public_key, proof=_proof(key))


class HostQuestion:
    """One question of a client; ask no two hosts the same one."""

    def __init__(self) -> None:
        self._own = Identity.generate()

    @property
    def question(self) -> ProofQuestion:
        return ProofQuestion(public_key=self._own.public_key)

    def proven_fingerprint(self, answer: ProofAnswer) -> str:
        """The fingerprint of the host that answered; raises InvalidInput if it proved nothing."""
        purpose = _purpose(answer.host_public_key, self._own.public_key)
        wanted = _proof(self._own.shared_key(answer.host_public_key, purpose))
        if not hmac.compare_digest(wanted.encode(), answer.proof.encode("utf-8", "replace")):
            raise InvalidInput("the proof does not fit the key that the host shows")
        return fingerprint_of(answer.host_public_key)


def _purpose(host_public_key: str, asker_public_key: str) -> bytes:
    return _PURPOSE + f"{host_public_key} {asker_public_key}".encode()


def _proof(key: bytes) -> str:
    return hmac.new(key, b"this host holds the key", "sha256").hexdigest()
