"""Users and their tokens: who a credential belongs to, and the life of tokens.

A token manages itself and what was made with it, and nothing else: it sees those, deletes those, and what it
makes ends with it. The administrator's token in the file on the host's machine manages all tokens of its
user, those without a parent among them, which an older version made.

Rows are kept in memory over the store; a change is written first and shown afterwards. The text of a token
is returned once, by the call that makes it; the store holds its SHA-256.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from kohakuriver.broadcast import Broadcast
from kohakuriver.host.auth.permissions import Actor
from kohakuriver.host.auth.token_uses import TokenUses
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
    """Answers who a request is from. Make it with `open`; used only from the event loop.

    `on_loss` is called when somebody has lost a right.
    """

    def __init__(
        self, store: Store, enabled: bool, users: Iterable[UserRow], tokens: Iterable[TokenRow]
    ) -> None:
        self.enabled = enabled
        self._store = store
        self._users = {user.name: user for user in users}
        self._tokens = {token.hash: token for token in tokens}
        self._admin_token_id = ""
        self._loss = Broadcast()
        self.uses = TokenUses(store)
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
            loss = self._loss.next
            try:
                if self.authenticate(header) != actor or not still():
                    return "the rights of this credential have changed; connect again"
            except Unauthenticated as error:
                return str(error)
            await loss.wait()

    def tell_of_loss(self) -> None:
        """Have whatever is open looked at again, because somebody has lost a right."""
        self._loss.wake_all()
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
        return Actor(user.name, min(token.role, user.role), token.id)

    def user(self, name: str) -> UserRow | None:
        """Return the user of exactly that name, if there is one."""
        return self._users.get(name)

    def number_of(self, name: str) -> int | None:
        """Return the number of the user of exactly that name, if there is one."""
        user = self._users.get(name)
        return user.number if user else None

    def user_of_number(self, number: int) -> UserRow:
        """Raises NotFound if nobody has it."""
        for user in self._users.values():
            if user.number == number:
                return user
        raise NotFound(f"there is no user with the number {number}")

    def tokens_of(self, actor: Actor) -> list[TokenRow]:
        """The tokens that the actor's own manages, oldest first."""
        own = [token for token in self._tokens.values() if token.user_name == actor.name]
        if not actor.token_id or actor.token_id != self._admin_token_id:
            family = _family(own, actor.token_id)
            own = [token for token in own if token.id in family]
        return sorted(own, key=lambda token: (token.created_at, token.id))

    async def create_token(self, actor: Actor, name: str, role: Role | None = None) -> NewToken:
        """Make a token of the actor's own, which ends with the one that it is made with.

        `role` None: the actor's. Raises Denied for a higher one.
        """
        if not self.enabled:
            raise Conflict("authentication is off on this host, so there are no tokens to make")
        role = actor.role if role is None else role
        if role > actor.role:
            raise Denied(
                f"a token cannot carry the role {role.name.lower()}: yours is {actor.role.name.lower()}"
            )
        if sum(token.user_name == actor.name for token in self._tokens.values()) >= MAX_TOKENS_PER_USER:
            raise Conflict(
                f"{actor.name} has {MAX_TOKENS_PER_USER} tokens; delete one that is not used any more"
            )
        return await self._add_token(actor.name, name, role, actor.token_id or None)

    async def delete_token(self, actor: Actor, which: str) -> str:
        """End a token that the actor's own manages, what was made with it, and what they opened.

        `which`: its id, or its number. Returns its id; raises NotFound for any other, whether or not there is
        one.
        """
        own = self.tokens_of(actor)
        named = [token.id for token in own if token.id == which]
        numbered = [token.id for token in own if str(token.number) == which]
        if not (named or numbered):
            raise NotFound(
                f"this token manages no token {which[:40]!r}; GET /api/auth/tokens lists itself and those "
                "that were made with it"
            )
        (token_id,) = named or numbered
        written: set[str] = set()
        # Again for what was made with one of them while this was written.
        while (family := _family(self._tokens.values(), token_id)) - written:
            await self._store.write(partial(writes.delete_tokens, token_ids=sorted(family - written)))
            written |= family
        self._tokens = {key: token for key, token in self._tokens.items() if token.id not in family}
        self.uses.forget(family)
        self.tell_of_loss()
        return token_id

    async def admin_token(self, known: str | None) -> str:
        """Return a token of the user `admin`, made if need be: `known` itself if it is still that."""
        user = self._users.get(ADMIN)
        if user is None or not user.active or user.role is not Role.ADMIN:
            number = user.number if user else 0
            user = UserRow(ADMIN, Role.ADMIN, True, user.created_at if user else _now(), number)
            self._users[ADMIN] = await self._store.write(partial(writes.put_user, user=user))
        actor = self.actor_of(known) if known else None
        if known and actor == Actor(ADMIN, Role.ADMIN):
            self._admin_token_id = actor.token_id
            return known
        made = await self._add_token(ADMIN, "command line on the host", Role.ADMIN)
        self._admin_token_id = made.row.id
        return made.text

    async def _add_token(
        self, user_name: str, name: str, role: Role, parent_id: str | None = None
    ) -> NewToken:
        text = f"kr_{secrets.token_urlsafe(32)}"
        row = TokenRow(secrets.token_hex(8), user_name, name, role, _hash(text), _now(), parent_id)
        row = await self._store.write(partial(writes.add_token, token=row))
        if parent_id is not None and all(token.id != parent_id for token in self._tokens.values()):
            # Its parent was deleted while this one was written, and took along what it knew of.
            await self._store.write(partial(writes.delete_tokens, token_ids=[row.id]))
            raise Unauthenticated("the token is not valid (any more); ask for a new one or log in again")
        self._tokens[row.hash] = row
        return NewToken(row, text)


def _family(tokens: Iterable[TokenRow], token_id: str) -> set[str]:
    """The ids of a token and of all that were made with it, by itself or by one of those."""
    family, children = {token_id}, defaultdict(list)
    for token in tokens:
        children[token.parent_id].append(token.id)
    waiting = [token_id]
    while waiting:
        made = [child for child in children[waiting.pop()] if child not in family]
        family.update(made)
        waiting += made
    return family


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
