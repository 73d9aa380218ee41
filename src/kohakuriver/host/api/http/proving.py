"""The proof that this is the host of its fingerprint, which clients ask for before they send a token."""

from fastapi import Request
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, answer
from kohakuriver.host.api.http.auditing import Unaudited
from kohakuriver.host.api.http.body_reading import read_body
from kohakuriver.host.api.permissions import AnyoneCall
from kohakuriver.wire.messages import decode
from kohakuriver.wire.trust.host_proof import MAX_QUESTION_BYTES, PROVE_PATH, ProofAnswer, ProofQuestion


async def prove(call: AnyoneCall, request: Request) -> Response:
    """Prove that this host holds the private key of the public key that it shows."""
    question = decode(await read_body(request, MAX_QUESTION_BYTES), ProofQuestion)
    return answer(call.parts.prove(question))


_UNAUDITED = Unaudited("it changes nothing, and every connection of a client begins with it")
ENDPOINTS = (Endpoint("POST", PROVE_PATH, prove, ProofAnswer, errors=(413,), audit=_UNAUDITED),)
