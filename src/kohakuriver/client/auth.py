"""Calls about who one is, and one's tokens."""

from datetime import datetime
from urllib.parse import quote

import msgspec

from kohakuriver.client.connection.transport import Transport
from kohakuriver.client.records import Message, Reply


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """`token_id` is that of the token that was sent; None where nobody is asked for one."""

    name: str
    role: str
    auth_enabled: bool = True
    token_id: str | None = None


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One token. `id` is its number, or a text of hosts of before; `token` is there when it was just made."""

    id: int | str
    name: str = ""
    role: str = ""
    created_at: datetime | None = None
    last_used: datetime | None = None
    token: str | None = None


class AuthApi:
    """`/api/auth/…`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def me(self) -> Reply[Me]:
        return self._transport.fetch(Me, "GET", "/api/auth/me")

    def tokens(self) -> Reply[list[TokenRecord]]:
        """Return the token that was sent and those that were made with it."""
        return self._transport.fetch(list[TokenRecord], "GET", "/api/auth/tokens")

    def create_token(self, name: str, role: str | None = None) -> Reply[TokenRecord]:
        body = {"name": name, **({"role": role} if role else {})}
        return self._transport.fetch(TokenRecord, "POST", "/api/auth/tokens/create", body=body)

    def delete_token(self, which: str) -> Reply[Message]:
        """End a token, by its number or its id, and those that were made with it."""
        return self._transport.fetch(Message, "DELETE", f"/api/auth/tokens/{quote(which, safe='')}")
