"""Who one is, and the tokens that one's own manages; before them, the proof that this is the host of its
fingerprint.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.http.auditing import Unaudited
from kohakuriver.host.api.http.bodies import CreateTokenBody, JsonBody
from kohakuriver.host.api.http.body_reading import read_body
from kohakuriver.host.api.permissions import AnyoneCall, ViewerCall
from kohakuriver.host.auth import KnownToken
from kohakuriver.models.enums import Role
from kohakuriver.wire.messages import decode
from kohakuriver.wire.trust.host_proof import MAX_QUESTION_BYTES, PROVE_PATH, ProofAnswer, ProofQuestion

_UNAUDITED = Unaudited("it changes nothing, and every connection of a client begins with it")


async def prove(call: AnyoneCall, request: Request) -> Response:
    """Prove that this host holds the private key of the public key that it shows."""
    question = decode(await read_body(request, MAX_QUESTION_BYTES), ProofQuestion)
    return answer(call.parts.prove(question))


class AuthStatus(msgspec.Struct, frozen=True):
    auth_enabled: bool
    session_expire_hours: int


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """`id` and `created_at` are null where nobody is asked for a credential; `token_id` is this request's."""

    id: int | None
    username: str
    display_name: str
    role: str
    is_active: bool
    created_at: datetime | None
    name: str
    auth_enabled: bool
    token_id: str | None


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One token. `id` is its number; `token_id` names it in the audit log. Either may be deleted by."""

    id: int
    token_id: str
    name: str
    role: str
    created_at: datetime
    last_used: datetime | None


class CreatedToken(TokenRecord, frozen=True, kw_only=True):
    """`token` is shown here and never again."""

    token: str


async def status(call: AnyoneCall) -> Response:
    """Tell whether this host asks for tokens, and for how long a login is to hold."""
    return answer(AuthStatus(call.parts.auth.enabled, call.parts.session_expire_hours))


async def me(call: ViewerCall) -> Response:
    """Tell who the credential stands for."""
    actor, auth = call.actor, call.parts.auth
    user = call.control.accounts.known.users.get(actor.name)
    return answer(
        Me(
            id=user.number if user else None,
            username=actor.name,
            display_name=actor.name,
            role=actor.role.name.lower(),
            is_active=True,
            created_at=user.created_at if user else None,
            name=actor.name,
            auth_enabled=auth.enabled,
            token_id=actor.token_id or None,
        )
    )


async def list_tokens(call: ViewerCall) -> Response:
    """List the token of this request and those that were made with it, without their texts."""
    rows = call.parts.auth.tokens_of(call.actor)
    return answer([TokenRecord(**_shown(call.parts.auth.uses.known(row))) for row in rows])


def _shown(token: KnownToken) -> dict[str, Any]:
    return {
        "id": token.number,
        "token_id": token.id,
        "name": token.name,
        "role": token.role,
        "created_at": token.created_at,
        "last_used": token.last_used,
    }


async def create_token(
    call: ViewerCall, body: Annotated[CreateTokenBody, Depends(JsonBody(CreateTokenBody))]
) -> Response:
    """Make a token for oneself, with one's own role or a lower one; it ends with the one of this request."""
    role = None if body.role is None else Role[body.role.upper()]
    made = await call.parts.auth.create_token(call.actor, body.name, role)
    row = made.row
    call.trail.note(row.id, f"role {row.role.name.lower()}")
    return answer(CreatedToken(**_shown(call.parts.auth.uses.known(row)), token=made.text))


async def delete_token(call: ViewerCall, token_id: str) -> Response:
    """End the token of this request or one that was made with it, and with it those made with that one.

    `token_id` is the number of one, or its own id.
    """
    call.trail.note(await call.parts.auth.delete_token(call.actor, token_id))
    return answer(Message("the token is deleted"))


ENDPOINTS = (
    Endpoint("POST", PROVE_PATH, prove, ProofAnswer, errors=(413,), audit=_UNAUDITED),
    Endpoint("GET", "/api/auth/status", status, AuthStatus),
    Endpoint("GET", "/api/auth/me", me, Me),
    Endpoint("GET", "/api/auth/tokens", list_tokens, list[TokenRecord]),
    Endpoint(
        "POST", "/api/auth/tokens/create", create_token, CreatedToken, errors=(409,), audit="token.create"
    ),
    Endpoint(
        "DELETE", "/api/auth/tokens/{token_id}", delete_token, Message, errors=(404,), audit="token.delete"
    ),
)
