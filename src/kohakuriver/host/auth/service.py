"""Who a credential stands for, and the life of tokens.

A token manages itself and what was made with it, and nothing else: it sees those, deletes those, and what it
makes ends with it. The administrator's token in the file on the host's machine manages all tokens of its
user, those without a parent among them, which an older version made.

Users and tokens are the control room's (`host.control.accounts`), and count once they are committed. The text
of a token is returned once, by the call that makes it; the store holds its SHA-256.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from kohakuriver.host.auth.permissions import Action, Actor, may
from kohakuriver.host.auth.rights import Rights
from kohakuriver.host.auth.token_uses import TokenUses
from kohakuriver.host.control.accounts.account_changes import ADMIN
from kohakuriver.host.control.accounts.account_control import AccountControl
from kohakuriver.host.store.records import TokenRow
from kohakuriver.models.enums import Role
from kohakuriver.models.errors import Conflict, Denied, Unauthenticated
from kohakuriver.models.tasks import Task

log = structlog.get_logger()

ANONYMOUS = Actor("anonymous", Role.ADMIN)
RIGHTS_CHANGED = "the rights of this credential have changed; connect again"
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
    """Answers who a request is from; used only from the event loop. `rights`: what is open by them."""

    def __init__(self, accounts: AccountControl, uses: TokenUses, *, enabled: bool) -> None:
        self.enabled = enabled
        self.uses = uses
        self.rights = Rights()
        self._accounts = accounts
        self._admin_token_id = ""

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

    def refusal(
        self, header: str | None, actor: Actor, still: Callable[[], bool] = lambda: True
    ) -> str | None:
        """Say why the header does not stand for the actor's rights any more; None while it does.

        `still` tells whether the actor may do what it does.
        """
        try:
            unchanged = self.authenticate(header) == actor
        except Unauthenticated as error:
            return str(error)
        return None if unchanged and still() else RIGHTS_CHANGED

    def may_use(self, actor: Actor, task: Task) -> bool:
        """Tell whether the actor may open shells, files and ports of the workload."""
        assigned = self._accounts.known.is_assigned(task.id, actor.name)
        return may(actor, Action.USE_WORKLOAD, task.owner, assigned=assigned)

    def actor_of(self, text: str) -> Actor | None:
        """Return who holds the token, or None if it is not valid."""
        digest = _hash(text)
        accounts = self._accounts.known
        token = accounts.tokens.get(digest)
        if token is None or not hmac.compare_digest(token.hash, digest):
            return None
        user = accounts.users.get(token.user_name)
        if user is None or not user.active:
            return None
        return Actor(user.name, min(token.role, user.role), token.id)

    def tokens_of(self, actor: Actor) -> list[TokenRow]:
        """The tokens that the actor's own manages, oldest first."""
        return self._accounts.known.tokens_of(actor.name, self._family_managed_by(actor))

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
        made = _new_token(actor.name, name, role, actor.token_id or None)
        return replace(made, row=await self._accounts.add_token(made.row))

    async def delete_token(self, actor: Actor, which: str) -> str:
        """End a token that the actor's own manages, what was made with it, and what they opened.

        `which`: its id, or its number. Returns its id; raises NotFound for any other, whether or not there is
        one.
        """
        token_id, ended = await self._accounts.end_token(actor.name, which, self._family_managed_by(actor))
        self.uses.forget(ended)
        return token_id

    async def admin_token(self, known: str | None) -> str:
        """Return a token of the user `admin`, made if need be: `known` itself if it is still that.

        Only while the host starts.
        """
        spare = _new_token(ADMIN, "command line on the host", Role.ADMIN)
        row = await self._accounts.provide_admin(_hash(known) if known else None, spare.row)
        self._admin_token_id = row.id
        return known if known and row.hash != spare.row.hash else spare.text

    def _family_managed_by(self, actor: Actor) -> str | None:
        is_of_host = actor.token_id and actor.token_id == self._admin_token_id
        return None if is_of_host else actor.token_id


def _new_token(user_name: str, name: str, role: Role, parent_id: str | None = None) -> NewToken:
    text = f"kr_{secrets.token_urlsafe(32)}"
    token_id, now = secrets.token_hex(8), datetime.now(UTC)
    return NewToken(TokenRow(token_id, user_name, name, role, _hash(text), now, parent_id), text)


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
