"""Which runners are ours: enrolment by join token or approval.

A join token is used in the same transaction that makes its node, so exactly one use can succeed; the same
runner asking again (its answer was lost) is given the same answer. A name that is taken keeps its key.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from kohakuriver.host.control.nodes.node import LiveNode
from kohakuriver.host.control.nodes.pending_runners import PendingRunners
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.records import EnrolmentRow, JoinTokenRow, NodeRow
from kohakuriver.models.enums import EnrolState
from kohakuriver.models.errors import Conflict, Denied, InvalidInput, NotFound
from kohakuriver.models.spec.targets import is_hostname
from kohakuriver.wire.messages import EnrolAnswer, EnrolRequest
from kohakuriver.wire.trust.enrolment import JoinToken, approval_proof, host_proof, join_proof, proofs_equal
from kohakuriver.wire.trust.identity import Identity, Side, fingerprint_of


def check_request(state: ClusterState, request: EnrolRequest, now: datetime, host: Identity) -> None:
    """Raise what a runner's first contact is refused for whoever else is there: names, keys, tokens."""
    if not is_hostname(request.hostname):
        raise InvalidInput(f"{request.hostname[:80]!r} cannot be a node's name", field="hostname")
    fingerprint_of(request.public_key)
    if request.join_token_id is not None:
        _checked_token(state, request, now, host)


def check_not_refused(waiting: PendingRunners, state: ClusterState, request: EnrolRequest) -> None:
    """Raise Denied for a runner that an administrator has refused and nobody has let in since."""
    if request.hostname not in state.nodes and waiting.is_refused(fingerprint_of(request.public_key)):
        raise Denied("an administrator has refused this runner; ask for a join token, or try again tomorrow")


def enrol(
    turn: Turn, request: EnrolRequest, host: Identity, waiting: PendingRunners, address: str
) -> EnrolAnswer:
    """Answer a runner's first contact: approved by token or before, else it waits for approval."""
    check_request(turn.state, request, turn.now, host)
    node = turn.state.nodes.get(request.hostname)
    if node is not None and node.row.public_key != request.public_key:
        raise Conflict(
            f"a node named {request.hostname} is enrolled with another key; remove it or rename this one"
        )
    if request.join_token_id is not None:
        proof = _use_token(turn, request, host)
        if node is None:
            _take_in(turn, request.hostname, request.public_key, f"join token {request.join_token_id}")
        return answer_of(turn.state, request, host, host_proof=proof)
    if node is None:
        check_not_refused(waiting, turn.state, request)
        _let_wait(turn, request, waiting, address)
    return answer_of(turn.state, request, host)


def answer_of(
    state: ClusterState, request: EnrolRequest, host: Identity, host_proof: str | None = None
) -> EnrolAnswer:
    """What a runner is told that has not been refused."""
    node = state.nodes.get(request.hostname)
    approved = node is not None and node.row.public_key == request.public_key
    return EnrolAnswer(
        state=EnrolState.APPROVED if approved else EnrolState.PENDING,
        cluster_id=state.cluster_id,
        host_public_key=host.public_key,
        fingerprint=fingerprint_of(request.public_key),
        host_proof=host_proof,
        approval_proof=_approval_of(state, request, host) if approved else None,
    )


def _approval_of(state: ClusterState, request: EnrolRequest, host: Identity) -> str:
    return approval_proof(host, request.public_key, Side.HOST, request.hostname, state.cluster_id)


def _checked_token(state: ClusterState, request: EnrolRequest, now: datetime, host: Identity) -> JoinTokenRow:
    token = state.join_tokens.get(request.join_token_id or "")
    keys = (request.hostname, request.public_key, host.public_key)
    if token is None or not proofs_equal(request.join_proof, join_proof(token.secret, *keys)):
        raise Denied(
            "the join token is not valid here; make a new one with `kohakuriver node join-token create`"
        )
    if token.used_by_key not in (None, request.public_key):
        raise Denied("the join token was used by another node; make a new one for this node")
    if token.used_by_key is None and token.expires_at <= now:
        raise Denied("the join token has expired; make a new one with `kohakuriver node join-token create`")
    return token


def _use_token(turn: Turn, request: EnrolRequest, host: Identity) -> str:
    token = _checked_token(turn.state, request, turn.now, host)
    if token.used_by_key is None:
        used = replace(token, used_by_key=request.public_key)
        turn.state.join_tokens[token.id] = used
        turn.changes.join_tokens[token.id] = used
    return host_proof(token.secret, request.hostname, request.public_key, host.public_key)


def _let_wait(turn: Turn, request: EnrolRequest, waiting: PendingRunners, address: str) -> None:
    fingerprint = fingerprint_of(request.public_key)
    if fingerprint not in turn.state.enrolments:
        end_waiting(turn, waiting.in_the_way(turn.state.enrolments.values(), address))
        row = EnrolmentRow(fingerprint, request.hostname, request.public_key, turn.now)
        turn.state.enrolments[fingerprint] = row
        turn.changes.enrolments[fingerprint] = row
        if fingerprint in turn.changes.ended_enrolments:
            turn.changes.ended_enrolments.remove(fingerprint)
    waiting.note(fingerprint, address)


def end_waiting(turn: Turn, fingerprints: Iterable[str]) -> None:
    """Forget runners that wait; those that do not any more are passed over."""
    for fingerprint in fingerprints:
        if turn.state.enrolments.pop(fingerprint, None) is not None:
            turn.changes.enrolments.pop(fingerprint, None)
            turn.changes.ended_enrolments.append(fingerprint)


def approve_node(turn: Turn, hostname: str, fingerprint: str | None, by: str) -> None:
    """Take in a waiting runner; with two of one name, or to be sure, its fingerprint must be given."""
    waiting = _who_waits(turn, hostname, fingerprint)
    if not waiting:
        if hostname in turn.state.nodes and fingerprint is None:
            return
        raise _nobody_waits(hostname, fingerprint)
    if len(waiting) > 1:
        raise Conflict(f"{len(waiting)} runners named {hostname} wait; name one by its fingerprint")
    if hostname in turn.state.nodes:
        raise Conflict(f"a node named {hostname} is enrolled with another key; remove it first")
    _take_in(turn, hostname, waiting[0].public_key, by)


def reject_node(turn: Turn, hostname: str, fingerprint: str | None) -> list[str]:
    """Refuse all that wait under a name, or the one of them with that fingerprint; returns fingerprints."""
    gone = [row.fingerprint for row in _who_waits(turn, hostname, fingerprint)]
    if not gone:
        raise _nobody_waits(hostname, fingerprint)
    end_waiting(turn, gone)
    return gone


def _who_waits(turn: Turn, hostname: str, fingerprint: str | None) -> list[EnrolmentRow]:
    waiting = [row for row in turn.state.enrolments.values() if row.hostname == hostname]
    return [row for row in waiting if fingerprint in (None, row.fingerprint)]


def _nobody_waits(hostname: str, fingerprint: str | None) -> NotFound:
    which = "" if fingerprint is None else " with that fingerprint"
    return NotFound(
        f"no runner named {hostname}{which} waits for approval; `kohakuriver node list` shows who does"
    )


def _take_in(turn: Turn, hostname: str, public_key: str, by: str) -> None:
    row = NodeRow(hostname, public_key, by, turn.now)
    turn.put_node(LiveNode(row), row)
    waiting = [row.fingerprint for row in turn.state.enrolments.values() if row.public_key == public_key]
    end_waiting(turn, waiting)


def create_join_token(turn: Turn, by: str, hours: float, host: Identity) -> tuple[JoinTokenRow, str]:
    """Make a token that is good once; its text is returned here and nowhere else."""
    token = JoinToken.generate(host.fingerprint)
    row = JoinTokenRow(token.token_id, token.secret, by, turn.now, turn.now + timedelta(hours=hours))
    turn.state.join_tokens[row.id] = row
    turn.changes.join_tokens[row.id] = row
    return row, token.format()


def delete_join_token(turn: Turn, token_id: str) -> None:
    if turn.state.join_tokens.pop(token_id, None) is None:
        raise NotFound(f"there is no join token {token_id[:40]!r}")
    turn.changes.ended_join_tokens.append(token_id)
