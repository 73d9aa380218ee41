"""How the client of a sandbox and its runner prove to each other that they know the sandbox's secret.

The workload may read every packet of the namespace, and may answer in the gateway's place. So the secret is
never sent; both proofs cover both nonces, and each end's words differ, so that none can be used twice or sent
back.

    runner -> client   {"nonce": R}
    client -> runner   {"nonce": C, "proof": of the client}
    runner -> client   {"proof": of the runner}             then frames
"""

import hashlib
import hmac
import secrets
from enum import StrEnum
from typing import Annotated

import msgspec

from kohakuriver.models.errors import InvalidInput

_HEX_64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
MAX_TEXT_BYTES = 1024
"""Of each of the three messages."""


class Prover(StrEnum):
    CLIENT = "client"
    RUNNER = "runner"


class Challenge(msgspec.Struct, frozen=True):
    nonce: _HEX_64


class Answer(msgspec.Struct, frozen=True):
    nonce: _HEX_64
    proof: _HEX_64


class Confirmation(msgspec.Struct, frozen=True):
    proof: _HEX_64


def new_nonce() -> str:
    return secrets.token_hex(32)


def proof(secret: bytes, prover: Prover, name: str, runner_nonce: str, client_nonce: str) -> str:
    """Return what `prover` sends; `name` is the sandbox's."""
    words = "\n".join((f"kohakuriver tunnel v2 {prover.value}", name, runner_nonce, client_nonce))
    return hmac.new(secret, words.encode(), hashlib.sha256).hexdigest()


def is_proof(claimed: str, true: str) -> bool:
    return hmac.compare_digest(claimed.encode(), true.encode())


def read_answer(text: str) -> Answer:
    """Raises InvalidInput for what is none."""
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidInput("that is no answer to the tunnel's challenge: it is too long")
    try:
        return msgspec.json.decode(text, type=Answer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("that is no answer to the tunnel's challenge") from None
