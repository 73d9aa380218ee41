"""Who asks, and the one function that answers whether they may."""

from dataclasses import dataclass, field
from enum import Enum

from kohakuriver.models.enums import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a request; `role` is what the credential carries, never more than its user's own.

    `token_id` is that of the credential, "" where there is none; it says what the request may do to tokens.
    """

    name: str
    role: Role
    token_id: str = field(default="", compare=False)


class Action(Enum):
    """What is done to an object that belongs to somebody."""

    READ_TASK = "read a task and its output"
    READ_ENVIRONMENT_VALUES = "read the values of a task's environment variables"
    CONTROL_TASK = "control a task"
    USE_WORKLOAD = "open shells, files and ports of a workload"
    GRANT_HOST_ACCESS = "use privileged mode or mounts of a node's own paths"
    SKIP_APPROVAL = "run a task without an operator's approval"
    GO_FIRST = "pass everybody in the queue"


_ALSO_OTHERS = {
    Action.READ_TASK: Role.VIEWER,
    Action.READ_ENVIRONMENT_VALUES: Role.OPERATOR,
    Action.CONTROL_TASK: Role.OPERATOR,
    Action.USE_WORKLOAD: Role.OPERATOR,
    Action.GRANT_HOST_ACCESS: Role.OPERATOR,
    Action.SKIP_APPROVAL: Role.OPERATOR,
    Action.GO_FIRST: Role.OPERATOR,
}
_OWNER = {
    Action.READ_TASK: Role.VIEWER,
    Action.READ_ENVIRONMENT_VALUES: Role.VIEWER,
    Action.CONTROL_TASK: Role.USER,
    Action.USE_WORKLOAD: Role.USER,
}
_ASSIGNED = {Action.USE_WORKLOAD: Role.USER}


def may(actor: Actor, action: Action, owner: str | None = None, *, assigned: bool = False) -> bool:
    """Tell whether the actor may do this to an object of `owner` (None: to nobody's in particular).

    `assigned`: it is a VPS that somebody assigned to the actor.
    """
    if actor.role >= _ALSO_OTHERS[action]:
        return True
    if assigned and action in _ASSIGNED and actor.role >= _ASSIGNED[action]:
        return True
    needed = _OWNER.get(action)
    return needed is not None and owner == actor.name and actor.role >= needed
