"""The golden vectors of both languages, and what a walk must come by to be worth reading."""

import json

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.tunnel.frames import FrameType
from kohakuriver.wire.tunnel.proof import Prover, is_proof, new_nonce, proof, read_answer
from support.tunnel.vectors import FOLDER, Scenario, as_bytes, as_text, play, read_vectors

SCENARIOS = [*read_vectors("ends.json"), *read_vectors("walks.json")]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_an_end_does_as_recorded(scenario: Scenario) -> None:
    for played, recorded in zip(play(scenario), scenario["steps"], strict=True):
        assert played == recorded


def test_the_walks_come_by_everything() -> None:
    steps = [step for scenario in read_vectors("walks.json") for step in scenario["steps"]]
    events = {event[0] for step in steps for event in step.get("events", [])}
    assert events == {"Opened", "Connected", "Received", "RoomAgain", "Finished", "Ended", "Reset"}
    written = {as_bytes(frame[:4])[0] for step in steps for _, frame in step.get("frames", [])}
    assert written == set(FrameType)


def test_bytes_are_written_as_they_are_read() -> None:
    for data in (b"", b"a", b"a" * 9 + b"bc", bytes(range(256)), b"ab" * 40):
        assert as_bytes(as_text(data)) == data


@pytest.mark.parametrize("vector", read_vectors("proofs.json"), ids=lambda vector: vector["prover"])
def test_proofs_are_those_recorded(vector: dict[str, str]) -> None:
    true = proof(
        bytes.fromhex(vector["secret"]),
        Prover(vector["prover"]),
        vector["name"],
        vector["runner"],
        vector["client"],
    )
    assert is_proof(vector["proof"], true)


def test_a_proof_is_of_one_end_one_sandbox_and_two_nonces() -> None:
    secret, mine, yours = b"s" * 32, new_nonce(), new_nonce()
    proofs = {
        proof(secret, Prover.CLIENT, "a", mine, yours),
        proof(secret, Prover.RUNNER, "a", mine, yours),
        proof(secret, Prover.CLIENT, "b", mine, yours),
        proof(secret, Prover.CLIENT, "a", yours, mine),
        proof(b"t" * 32, Prover.CLIENT, "a", mine, yours),
    }
    assert len(proofs) == 5
    assert not is_proof("ä", next(iter(proofs)))


def _answer(nonce: str) -> str:
    return json.dumps({"nonce": nonce, "proof": "a" * 64, "later": 1})


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[" * 5000, '{"nonce":"a","proof":"b"}', _answer("A" * 64)],
)
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_answer(text)


def test_an_answer_is_read() -> None:
    answer = read_answer(_answer("0" * 64))
    assert (answer.nonce, answer.proof) == ("0" * 64, "a" * 64)


def test_the_vectors_are_where_the_other_language_looks() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == {"ends.json", "walks.json", "proofs.json"}
