"""The proof of a host: what is asked, what is answered, and what the interface takes of it."""

from pathlib import Path

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.trust.host_proof import HostQuestion, ProofAnswer, ProofQuestion, answer_question
from kohakuriver.wire.trust.identity import Identity
from support.host.api import HOST_IDENTITY, ApiHarness, play

SMALL_ORDER = "A" * 43
"""The point 0, with which every secret is zero."""


def test_the_host_is_known_by_its_answer() -> None:
    host, question = Identity.generate(), HostQuestion()
    assert question.proven_fingerprint(answer_question(host, question.question)) == host.fingerprint


@pytest.mark.parametrize("key", [SMALL_ORDER, "", "x" * 43, "A" * 44, "é" * 43])
def test_a_key_that_is_none_proves_nothing(key: str) -> None:
    with pytest.raises(InvalidInput):
        HostQuestion().proven_fingerprint(ProofAnswer(host_public_key=key, proof="0" * 64))
    with pytest.raises(InvalidInput):
        answer_question(Identity.generate(), ProofQuestion(public_key=key))


def test_another_proof_or_another_key_is_refused() -> None:
    host, other, question = Identity.generate(), Identity.generate(), HostQuestion()
    answer = answer_question(host, question.question)
    for wrong in (
        ProofAnswer(host_public_key=other.public_key, proof=answer.proof),
        ProofAnswer(host_public_key=host.public_key, proof="é"),
        answer_question(host, HostQuestion().question),
    ):
        with pytest.raises(InvalidInput):
            question.proven_fingerprint(wrong)


def test_the_interface_proves_to_anybody_and_takes_nothing_large(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        question = HostQuestion()
        body = {"public_key": question.question.public_key}
        answer = (await harness.call(None, "POST", "/api/prove", json=body)).json()
        assert question.proven_fingerprint(ProofAnswer(**answer)) == HOST_IDENTITY.fingerprint
        large = await harness.call(None, "POST", "/api/prove", json={**body, "more": "x" * 600})
        assert (large.status_code, "512 bytes" in large.json()["detail"]) == (413, True)
        for wrong in (b"", b"[" * 400, b'{"public_key": 1}', b'{"public_key": "\xff"}'):
            assert (await harness.call(None, "POST", "/api/prove", content=wrong)).status_code == 422

    play(tmp_path, scenario)
