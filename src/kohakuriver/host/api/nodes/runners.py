"""What runners call. Every call is sealed and proven by its node, and speaks only for that node."""

from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request
from starlette.responses import Response

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.host.api.http.answers import Endpoint, encode, json_answer
from kohakuriver.host.api.http.auditing import OnlyNoted, Unaudited
from kohakuriver.host.api.http.body_reading import read_body
from kohakuriver.host.api.path_fields import HostnameText
from kohakuriver.host.api.permissions import AnyNameCall, RunnerCall, RunnerOnly
from kohakuriver.models.errors import Denied
from kohakuriver.wire.messages import (
    PROTOCOL_VERSION,
    EnrolAnswer,
    EnrolRequest,
    Heartbeat,
    HeartbeatAnswer,
    Registration,
    RegistrationAnswer,
    ReportsAnswer,
    TaskReport,
    decode,
)
from kohakuriver.wire.trust.identity import fingerprint_of

_MAX_ENROL_BYTES = 4096
"""A name, a key and a proof; anybody may send it."""


_MAX_MACHINE_BYTES = 1 << 20
"""A machine with 65,536 CPUs takes half of it. It is kept for as long as the node is enrolled."""


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this host is; a runner compares the fingerprint with the one in its join token."""

    cluster_id: str
    host_public_key: str
    fingerprint: str
    protocol_version: int


async def host_identity(call: AnyNameCall) -> Response:
    """Show the host's public key and its cluster."""
    key = call.control.host_public_key
    shown = HostIdentity(
        cluster_id=call.control.cluster_id,
        host_public_key=key,
        fingerprint=fingerprint_of(key),
        protocol_version=PROTOCOL_VERSION,
    )
    return Response(encode(shown), media_type="application/json")


async def enrol(call: AnyNameCall, request: Request) -> Response:
    """Take in a runner with a join token, or let it wait for `node approve`."""
    address = request.client.host if request.client else ""
    asked = decode(await read_body(request, _MAX_ENROL_BYTES), EnrolRequest)
    answered = await call.control.runners.enrol(asked, address)
    if answered.host_proof is not None:
        call.trail.note(asked.hostname, f"join token {asked.join_token_id}, key {answered.fingerprint}")
    reach(CrashPoint.HOST_NODE_ENROLLED)
    return Response(encode(answered), media_type="application/json")


async def register(
    call: Annotated[RunnerCall[Registration], Depends(RunnerOnly(Registration, _MAX_MACHINE_BYTES))],
    request: Request,
) -> Response:
    """Take in what a runner says of its machine; sent at each of its starts."""
    _check_name(call, call.message.hostname)
    answered = await call.control.runners.register(call.node, call.message, call.address)
    reach(CrashPoint.HOST_NODE_REGISTERED)
    return json_answer(request, encode(answered), 200)


async def heartbeat(
    hostname: HostnameText,
    call: Annotated[RunnerCall[Heartbeat], Depends(RunnerOnly(Heartbeat))],
    request: Request,
) -> Response:
    """Take in a node's figures and the full list of its workloads."""
    _check_name(call, hostname)
    answered = await call.control.runners.heartbeat(call.node, call.message)
    reach(CrashPoint.HOST_HEARTBEAT_APPLIED)
    return json_answer(request, encode(answered), 200)


async def update(
    call: Annotated[RunnerCall[TaskReport], Depends(RunnerOnly(TaskReport))], request: Request
) -> Response:
    """Take in one report of what became of a task."""
    committed = await call.control.runners.apply_reports(call.node, [call.message])
    return json_answer(request, encode(ReportsAnswer(committed=committed)), 200)


async def updates(
    call: Annotated[RunnerCall[list[TaskReport]], Depends(RunnerOnly(list[TaskReport]))], request: Request
) -> Response:
    """Take in reports in their order; answered once they are in the store."""
    committed = await call.control.runners.apply_reports(call.node, call.message)
    reach(CrashPoint.HOST_REPORTS_COMMITTED)
    return json_answer(request, encode(ReportsAnswer(committed=committed)), 200)


def _check_name(call: RunnerCall[Any], hostname: str) -> None:
    if hostname != call.node:
        raise Denied(f"the credential is that of {call.node}, which cannot speak for another node")


_BY_A_NODE = Unaudited("a node's signed message, many a second; what it changes is in the events")
ENDPOINTS = (
    Endpoint("PUT", "/api/heartbeat/{hostname}", heartbeat, HeartbeatAnswer, errors=(404,), audit=_BY_A_NODE),
    Endpoint("POST", "/api/updates", updates, ReportsAnswer, errors=(404, 409), audit=_BY_A_NODE),
    Endpoint("POST", "/api/update", update, ReportsAnswer, errors=(404, 409), audit=_BY_A_NODE),
    Endpoint("GET", "/api/enrol", host_identity, HostIdentity),
    Endpoint("POST", "/api/enrol", enrol, EnrolAnswer, errors=(403, 409, 429), audit=OnlyNoted("node.join")),
    Endpoint("POST", "/api/register", register, RegistrationAnswer, errors=(404,), audit=_BY_A_NODE),
)
