"""Who one is, and the tokens that one's own manages."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import Depends
from starlette.responses import Response

from kohakuriver.host.api.answers import Endpoint, Message, answer
from kohakuriver.host.api.bodies import CreateTokenBody, JsonBody
from kohakuriver.host.api.permissions import AnyoneCall, ViewerCall
from kohakuriver.models.enums import Role


class AuthStatus(msgspec.Struct, frozen=True):
    auth_enabled: bool


class Me(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: str
    auth_enabled: bool


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    role: str
    created_at: datetime


class CreatedToken(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is shown here and never again."""

    id: str
    name: str
    role: str
    token: str


async def status(call: AnyoneCall) -> Response:
    """Tell whether this host asks for tokens."""
    return answer(AuthStatus(call.parts.auth.enabled))


async def me(call: ViewerCall) -> Response:
    """Tell who the credential stands for."""
    actor = call.actor
    return answer(Me(name=actor.name, role=actor.role.name.lower(), auth_enabled=call.parts.auth.enabled))


async def list_tokens(call: ViewerCall) -> Response:
    """List the token of this request and those that were made with it, without their texts."""
    rows = call.parts.auth.tokens_of(call.actor)
    return answer(
        [
            TokenRecord(id=row.id, name=row.name, role=row.role.name.lower(), created_at=row.created_at)
            for row in rows
        ]
    )


async def create_token(
    call: ViewerCall, body: Annotated[CreateTokenBody, Depends(JsonBody(CreateTokenBody))]
) -> Response:
    """Make a token for oneself, with one's own role or a lower one; it ends with the one of this request."""
    role = None if body.role is None else Role[body.role.upper()]
    made = await call.parts.auth.create_token(call.actor, body.name, role)
    row = made.row
    call.trail.note(row.id, f"role {row.role.name.lower()}")
    return answer(CreatedToken(id=row.id, name=row.name, role=row.role.name.lower(), token=made.text))


async def delete_token(call: ViewerCall, token_id: str) -> Response:
    """End the token of this request or one that was made with it, and with it those made with that one."""
    await call.parts.auth.delete_token(call.actor, token_id)
    return answer(Message("the token is deleted"))


ENDPOINTS = (
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
