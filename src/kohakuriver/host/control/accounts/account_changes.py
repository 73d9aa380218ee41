"""What is changed about users, tokens and assignments, as commands of a turn.

A token ends with the one that it was made with, so all of them are looked at in the turn that ends one: what
is being made with it in the same moment either is there already, or finds that its parent is gone.
"""

from collections.abc import Sequence
from dataclasses import replace

from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.records import Changes, TokenRow, UserRow, VpsAssignment
from kohakuriver.models.enums import Role, TaskState
from kohakuriver.models.errors import Conflict, NotFound, Unauthenticated
from kohakuriver.models.ids import TaskId

ADMIN = "admin"
MAX_TOKENS_PER_USER = 100
MAX_ASSIGNMENTS = 200


def add_token(turn: Turn, token: TokenRow) -> TokenRow:
    """Take in a new token and give it its number.

    Raises Conflict for more than `MAX_TOKENS_PER_USER`, Unauthenticated if its parent has ended.
    """
    own = turn.accounts.tokens_of(token.user_name)
    if len(own) >= MAX_TOKENS_PER_USER:
        raise Conflict(
            f"{token.user_name} has {MAX_TOKENS_PER_USER} tokens; delete one that is not used any more"
        )
    if token.parent_id is not None and all(known.id != token.parent_id for known in own):
        raise Unauthenticated("the token is not valid (any more); ask for a new one or log in again")
    return turn.add_token(token)


def end_token(turn: Turn, user_name: str, which: str, within: str | None) -> tuple[str, set[str]]:
    """End a token of the user, and what was made with it; returns its id and those of all that ended.

    `which`: its id, or its number; `within`: see `Accounts.tokens_of`. Raises NotFound for any other, whether
    or not there is one.
    """
    own = turn.accounts.tokens_of(user_name, within)
    named = [token.id for token in own if token.id == which]
    numbered = [token.id for token in own if str(token.number) == which]
    if not (named or numbered):
        raise NotFound(
            f"this token manages no token {which[:40]!r}; GET /api/auth/tokens lists itself and those "
            "that were made with it"
        )
    (token_id,) = named or numbered
    family = turn.accounts.family_of(token_id)
    turn.end_tokens(family)
    return token_id, family


def provide_admin(turn: Turn, known: str | None, spare: TokenRow) -> TokenRow:
    """Return a token of the user `admin` with all its rights: that of the hash `known`, or `spare`, made now.

    The user is made, or made an active administrator again, if need be.
    """
    user = turn.accounts.users.get(ADMIN)
    if user is None:
        turn.put_user(UserRow(ADMIN, Role.ADMIN, True, turn.now))
    elif not user.active or user.role is not Role.ADMIN:
        turn.put_user(replace(user, role=Role.ADMIN, active=True))
    token = turn.accounts.tokens.get(known or "")
    if token is not None and token.user_name == ADMIN and token.role is Role.ADMIN:
        return token
    return turn.add_token(spare)


def assign(turn: Turn, task_id: TaskId, user_names: Sequence[str], by: str) -> None:
    """Let users use a VPS; free for those who may already.

    Raises NotFound for a name that nobody has, Conflict for more than `MAX_ASSIGNMENTS` of one VPS.
    """
    for name in user_names:
        if name not in turn.accounts.users:
            raise NotFound(f"there is no user {name!r} on this host; make the account first")
    new = [name for name in dict.fromkeys(user_names) if not turn.accounts.is_assigned(task_id, name)]
    if new and len(turn.accounts.assigned(task_id)) + len(new) > MAX_ASSIGNMENTS:
        raise Conflict(f"VPS {task_id} is assigned to {MAX_ASSIGNMENTS} users; take one out first")
    for name in new:
        turn.put_assignment(VpsAssignment(task_id, name, by, turn.now))


def unassign(turn: Turn, task_id: TaskId, user_name: str) -> None:
    """Raises NotFound if the VPS is not assigned to that user."""
    if not turn.accounts.is_assigned(task_id, user_name):
        raise NotFound(f"VPS {task_id} is not assigned to {user_name[:80]!r}")
    turn.end_assignment(task_id, user_name)


def may_end_rights(changes: Changes) -> bool:
    """Tell whether somebody may have lost a right by what was committed."""
    if changes.users or changes.ended_tokens or changes.ended_assignments or changes.deleted_tasks:
        return True
    changed = changes.changed_tasks.values()
    return any(task.is_vps and task.state is not TaskState.RUNNING for task in changed)
