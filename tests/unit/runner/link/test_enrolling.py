"""How long a runner pauses between its questions to be let in."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kohakuriver.models.enums import EnrolState
from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.link import enrolling
from kohakuriver.runner.link.enrolling import Enrolment, EnrolmentParts
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.wire.messages import EnrolAnswer, EnrolRequest, HostIntroduction
from kohakuriver.wire.trust.enrolment import approval_proof
from kohakuriver.wire.trust.identity import Identity, Side

QUESTIONS = 12


class Host:
    """Answers that an operator must approve, or not at all, and takes the runner in at last."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.asked = 0
        self.identity = Identity.generate()
        self.key = self.identity.public_key

    def trust(self, _keys: object) -> None: ...

    async def introduction(self) -> HostIntroduction:
        self.asked += 1
        if not self.answers and self.asked < QUESTIONS:
            raise Unavailable("the host does not answer")
        return HostIntroduction(cluster_id="c", host_public_key=self.key)

    async def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        state = EnrolState.APPROVED if self.asked == QUESTIONS else EnrolState.PENDING
        proof = approval_proof(self.identity, request.public_key, Side.HOST, request.hostname, "c")
        return EnrolAnswer(
            state=state, cluster_id="c", host_public_key=self.key, fingerprint="f", approval_proof=proof
        )


def pauses(folder: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of an enrolment, of which none is waited for."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(
        enrolling, "asyncio", SimpleNamespace(Event=asyncio.Event, sleep=sleep, to_thread=asyncio.to_thread)
    )
    known = host.identity.fingerprint
    parts = EnrolmentParts("n1", Identity.generate(), folder / "host.json", host_fingerprint=known)
    enrolment = Enrolment(parts, cast(HostClient, cast(Any, host)))
    asyncio.run(enrolment.run())
    assert enrolment.fault is None
    return taken


def test_who_waits_for_approval_asks_often_enough_to_be_in_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = pauses(tmp_path, Host(answers=True), monkeypatch)
    assert len(taken) == QUESTIONS - 1
    assert max(taken) <= 1.0


def test_a_host_that_does_not_answer_is_asked_more_and_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = pauses(tmp_path, Host(answers=False), monkeypatch)
    assert 4.0 <= max(taken) <= 10.0
