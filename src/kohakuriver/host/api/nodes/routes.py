"""Nodes: what they are and do, and how they are let in."""

import asyncio
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import Depends, Query
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer, encode, json_bytes
from kohakuriver.host.api.http.bodies import (
    ApproveNodeBody,
    DrainNodeBody,
    JoinTokenBody,
    JsonBody,
    OrphansBody,
    RejectNodeBody,
)
from kohakuriver.host.api.nodes.health import ClusterHealth, HealthPoint, cluster_health, latest_point
from kohakuriver.host.api.path_fields import HostnameText
from kohakuriver.host.api.permissions import AdminCall, ViewerCall
from kohakuriver.host.api.records import Drained, NodeRecord, node_record
from kohakuriver.models.enums import NodeStatus, OrphanChoice
from kohakuriver.models.errors import InvalidInput, NotFound
from kohakuriver.models.spec.targets import is_hostname

NODES_AGE_SECONDS = 0.25
_HEALTH_AGE_SECONDS = 1.0


class JoinTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    token_id: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    used: bool


class NewJoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is shown here and never again; the address is where the new node reaches this host."""

    token_id: str
    token: str
    expires_at: datetime
    host_address: str
    host_port: int


async def list_nodes(call: ViewerCall) -> Response:
    """List all nodes, and the runners that wait for approval."""

    async def make() -> bytes:
        waiting = [
            NodeRecord(hostname=row.hostname, status=NodeStatus.PENDING, fingerprint=row.fingerprint)
            for row in call.control.nodes.enrolments()
        ]
        return call.parts.node_texts.render(call.control.nodes.snapshots(), node_record, waiting)

    # Figures of nodes change without a commit, so the answer also has an age.
    return json_bytes(
        await call.parts.cache.get("nodes", lambda: call.control.figures.revision, make, NODES_AGE_SECONDS)
    )


async def health(call: ViewerCall, hostname: Annotated[str | None, Query(max_length=255)] = None) -> Response:
    """Show figures: with a name, that node's latest; without, the last 60 seconds of all."""
    if hostname is not None:
        node = next((node for node in call.control.nodes.snapshots() if node.row.hostname == hostname), None)
        if node is None:
            raise NotFound(f"there is no node {hostname[:80]!r}; GET /api/nodes lists them")
        return answer([latest_point(node)])

    async def make() -> bytes:
        # 1,000 nodes have 60,000 points, which take longer than others should wait.
        history, nodes = call.control.nodes.health(None), call.control.nodes.snapshots()
        return await asyncio.to_thread(lambda: encode(cluster_health(history, nodes)))

    return json_bytes(await call.parts.cache.get("health", lambda: 0, make, _HEALTH_AGE_SECONDS))


async def approve(
    call: AdminCall,
    hostname: HostnameText,
    body: Annotated[ApproveNodeBody, Depends(JsonBody(ApproveNodeBody))],
) -> Response:
    """Let a waiting runner in; name its fingerprint to be sure which one it is."""
    if not is_hostname(hostname):
        raise InvalidInput(f"{hostname[:80]!r} cannot be a node's name", "hostname")
    call.trail.note(detail=f"key {body.fingerprint or 'not named'}")
    await call.control.nodes.approve(hostname, body.fingerprint, call.actor.name)
    return answer(Message(f"node {hostname} is approved"))


async def reject(
    call: AdminCall,
    hostname: HostnameText,
    body: Annotated[RejectNodeBody, Depends(JsonBody(RejectNodeBody))],
) -> Response:
    """Refuse the runners that wait under a name, or the one of them whose fingerprint is given."""
    call.trail.note(detail=f"key {body.fingerprint or 'not named'}")
    count = await call.control.nodes.reject(hostname, body.fingerprint, call.actor.name)
    who = "the runner" if count == 1 else f"{count} runners"
    return answer(Message(f"{who} that waited as {hostname} may not join"))


async def drain(
    call: AdminCall,
    hostname: HostnameText,
    body: Annotated[DrainNodeBody, Depends(JsonBody(DrainNodeBody))],
) -> Response:
    """Close a node for new work; what runs there goes on, unless it can be moved and is to be."""
    held = await call.control.nodes.drain(hostname, body.move, call.actor.name)
    moving = [str(task.id) for task in held if task.move_requested]
    count = f"{len(held)} task is" if len(held) == 1 else f"{len(held)} tasks are"
    left = f"{count} still there" if held else "nothing is there any more"
    message = f"node {hostname} is being drained; {left}" + (f", {len(moving)} being moved" if moving else "")
    return answer(Drained(message=message, task_ids=[str(task.id) for task in held], moving=moving))


async def undrain(call: AdminCall, hostname: HostnameText) -> Response:
    """Open a drained node for new work."""
    await call.control.nodes.undrain(hostname)
    return answer(Message(f"node {hostname} takes new work"))


async def orphans(
    call: AdminCall,
    hostname: HostnameText,
    body: Annotated[OrphansBody, Depends(JsonBody(OrphansBody))],
) -> Response:
    """Decide about work that a node holds under the name of an unreachable one, which leaves the cluster."""
    call.trail.note(detail=f"{body.choice.value} what stands under {body.from_node}")
    commands = call.control.nodes
    count = await commands.decide_orphans(hostname, body.from_node, body.choice, call.actor.name)
    what = "1 workload" if count == 1 else f"{count} workloads"
    fate = f"go on as {hostname}'s" if body.choice is OrphanChoice.ADOPT else f"are ended on {hostname}"
    return answer(Message(f"{what} of {body.from_node} {fate}"))


async def remove(call: AdminCall, hostname: HostnameText, force: bool = False) -> Response:
    """Take a node out of the cluster; its key is worth nothing from then on. `force`: also while it works."""
    await call.control.nodes.remove(hostname, force)
    return answer(Message(f"node {hostname} is removed; it can join again with a new join token"))


async def list_join_tokens(call: AdminCall) -> Response:
    """List join tokens, without their texts."""
    rows = sorted(call.control.nodes.join_tokens(), key=lambda row: (row.created_at, row.id))
    return answer(
        [
            JoinTokenRecord(
                token_id=row.id,
                created_by=row.created_by,
                created_at=row.created_at,
                expires_at=row.expires_at,
                used=row.used_by_key is not None,
            )
            for row in rows
        ]
    )


async def create_join_token(
    call: AdminCall, body: Annotated[JoinTokenBody, Depends(JsonBody(JoinTokenBody))]
) -> Response:
    """Make a token with which one runner can join."""
    row, text = await call.control.nodes.create_join_token(call.actor.name, body.expires_hours)
    call.trail.note(row.id, f"for {body.expires_hours} hours")
    address, port = call.parts.reachable_at
    return answer(
        NewJoinToken(
            token_id=row.id, token=text, expires_at=row.expires_at, host_address=address, host_port=port
        )
    )


async def delete_join_token(call: AdminCall, token_id: str) -> Response:
    """End a join token; nodes that joined with it stay."""
    await call.control.nodes.delete_join_token(token_id)
    return answer(Message("the join token is deleted"))


ENDPOINTS = (
    Endpoint("GET", "/api/nodes", list_nodes, list[NodeRecord]),
    Endpoint("GET", "/api/health", health, ClusterHealth | list[HealthPoint], errors=(404,)),
    Endpoint("GET", "/api/nodes/join-tokens", list_join_tokens, list[JoinTokenRecord]),
    Endpoint(
        "POST",
        "/api/nodes/join-tokens",
        create_join_token,
        NewJoinToken,
        errors=(409,),
        audit="join_token.create",
    ),
    Endpoint(
        "DELETE",
        "/api/nodes/join-tokens/{token_id}",
        delete_join_token,
        Message,
        errors=(404,),
        audit="join_token.delete",
    ),
    Endpoint(
        "POST", "/api/nodes/{hostname}/approve", approve, Message, errors=(404, 409), audit="node.approve"
    ),
    Endpoint("POST", "/api/nodes/{hostname}/reject", reject, Message, errors=(404,), audit="node.reject"),
    Endpoint("POST", "/api/nodes/{hostname}/drain", drain, Drained, errors=(404,), audit="node.drain"),
    Endpoint("POST", "/api/nodes/{hostname}/undrain", undrain, Message, errors=(404,), audit="node.undrain"),
    Endpoint(
        "POST",
        "/api/nodes/{hostname}/leftovers",
        orphans,
        Message,
        errors=(404, 409),
        audit="node.leftovers",
    ),
    Endpoint("DELETE", "/api/nodes/{hostname}", remove, Message, errors=(404, 409), audit="node.remove"),
)
