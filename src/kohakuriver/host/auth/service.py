"""Users and their tokens: who a credential belongs to, and the life of tokens.

Rows are kept in memory over the store; a change is written first and shown afterwards. The text of a token
is returned once, by the call that makes it; the store holds its SHA-256.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from kohakuriver.host.auth.permissions import Actor
from kohakuriver.host.store import queries, writes
from kohakuriver.host.store.records import TokenRow, UserRow
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import Role
from kohakuriver.models.errors import Conflict, Denied, NotFound, Unauthenticated

log = structlog.get_logger()

ADMIN = "admin"
ANONYMOUS = Actor("anonymous", Role.ADMIN)
MAX_TOKENS_PER_USER = 100
_SCHEME = "bearer "
_MAX_HEADER = 300


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as its owner sees it once."""

    row: TokenRow
    text: str

    def __repr__(self) -> str:
        return f"NewToken({self.row.id})"


class AuthService:
    """Answers who a request is from. Make it with `open`; used from the event loop alone.

    `on_loss` is called when somebody has lost a right.
    """

    def __init__(
        self, store: Store, enabled: bool, users: Iterable[UserRow], tokens: Iterable[TokenRow]
    ) -> None:
        self.enabled = enabled
        self._store = store
        self._users = {user.name: user for user in users}
        self._tokens = {token.hash: token for token in tokens}
        self._loss = asyncio.Event()
        self.on_loss: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, store: Store, *, enabled: bool) -> "AuthService":
        users = await store.read(queries.all_users)
        tokens = await store.read(queries.all_tokens)
        return cls(store, enabled, users, tokens)

    def authenticate(self, header: str | None) -> Actor:
        """Return who an Authorization header stands for; raises Unauthenticated.

        With authentication off everybody is an administrator named `anonymous`.
        """
        if not self.enabled:
            return ANONYMOUS
        if not header:
            raise Unauthenticated(
                "this call needs a token: send it as 'Authorization: Bearer <token>' "
                "(the command line takes it from KOHAKURIVER_TOKEN or from its own config file)"
            )
        if len(header) > _MAX_HEADER or not header.lower().startswith(_SCHEME):
            raise Unauthenticated("the credential must have the form 'Authorization: Bearer <token>'")
        actor = self.actor_of(header[len(_SCHEME) :].strip())
        if actor is None:
            raise Unauthenticated("the token is not valid (any more); ask for a new one or log in again")
        return actor

    async def refused(
        self, header: str | None, actor: Actor, still: Callable[[], bool] = lambda: True
    ) -> str:
        """Wait until the header stands for other rights than the actor's; returns why, as a sentence.

        `still` tells whether the actor may do what it does; it is asked when somebody has lost a right.
        """
        while True:
            loss = self._loss
            try:
                if self.authenticate(header) != actor or not still():
                    return "the rights of this credential have changed; connect again"
            except Unauthenticated as error:
                return str(error)
            await loss.wait()

    def tell_of_loss(self) -> None:
        """Have whatever is open looked at again, because somebody has lost a right."""
        loss, self._loss = self._loss, asyncio.Event()
        loss.set()
        self.on_loss()

    def actor_of(self, text: str) -> Actor | None:
        """Return who holds the token, or None if it is not valid."""
        digest = _hash(text)
        token = self._tokens.get(digest)
        if token is None or not hmac.compare_digest(token.hash, digest):
            return None
        user = self._users.get(token.user_name)
        if user is None or not user.active:
            return None
        return Actor(user.name, min(token.role, user.role))

    def knows(self, user_name: str) -> bool:
        """Tell whether there is a user of exactly that name."""
        return user_name in self._users

    def tokens_of(self, user_name: str) -> list[TokenRow]:
        """The user's tokens, oldest first."""
        own = (token for token in self._tokens.values() if token.user_name == user_name)
        return sorted(own, key=lambda token: (token.created_at, token.id))

    async def create_token(self, actor: Actor, name: str, role: Role | None = None) -> NewToken:
        """Make a token of the actor's own; `role` None: the actor's. Raises Denied for a higher one."""
        if not self.enabled:
            raise Conflict("authentication is off on this host, so there are no tokens to make")
        role = actor.role if role is None else role
        if role > actor.role:
            raise Denied(
                f"a token cannot carry the role {role.name.lower()}: yours is {actor.role.name.lower()}"
            )
        if len(self.tokens_of(actor.name)) >= MAX_TOKENS_PER_USER:
            raise Conflict(
                f"{actor.name} has {MAX_TOKENS_PER_USER} tokens; delete one that is not used any more"
            )
        return await self._add_token(actor.name, name, role)

    async def delete_token(self, actor: Actor, token_id: str) -> None:
        """End a token of the actor's own, and with it what it opened; raises NotFound for anything else."""
        token = next((own for own in self.tokens_of(actor.name) if own.id == token_id), None)
        if token is None:
            raise NotFound(f"you have no token {token_id[:40]!r}; GET /api/auth/tokens lists yours")
        await self._store.write(partial(writes.delete_token, token_id=token.id))
        self._tokens.pop(token.hash, None)
        self.tell_of_loss()

    async def admin_token(self, known: str | None) -> str:
        """Return a token of the user `admin`, made if need be: `known` itself if it is still that."""
        user = self._users.get(ADMIN)
        if user is None or not user.active or user.role is not Role.ADMIN:
            user = UserRow(ADMIN, Role.ADMIN, True, user.created_at if user else _now())
            await self._store.write(partial(writes.put_user, user=user))
            self._users[ADMIN] = user
        if known and self.actor_of(known) == Actor(ADMIN, Role.ADMIN):
            return known
        return (await self._add_token(ADMIN, "command line on the host", Role.ADMIN)).text

    async def _add_token(self, user_name: str, name: str, role: Role) -> NewToken:
        text = f"kr_{secrets.token_urlsafe(32)}"
        row = TokenRow(secrets.token_hex(8), user_name, name, role, _hash(text), _now())
        await self._store.write(partial(writes.add_token, token=row))
        self._tokens[row.hash] = row
        return NewToken(row, text)


def warn_if_open(enabled: bool, bind_address: str) -> bool:
    """Log loudly if everybody who reaches the address is an administrator; return whether that is so."""
    if enabled or _is_loopback(bind_address):
        return False
    log.warning(
        "authentication_is_off",
        bind_address=bind_address,
        meaning="everybody who reaches this address can run any command on every node; "
        "set AUTH_ENABLED = True, or HOST_BIND_IP = '127.0.0.1'",
    )
    return True


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
