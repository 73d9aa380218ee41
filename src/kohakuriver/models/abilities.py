"""What work may need of a node beside room for it: a node has it or not, and it is never used up."""

from enum import StrEnum


class Ability(StrEnum):
    """Its value is its name on the wire. A new one is added here, with its sentence in `LACKS`; beside that,
    only what needs it (`TaskSpec.demand`) and what has it (the runner's description of itself) know of it."""

    SHARED_STORAGE = "shared_storage"


LACKS = {
    Ability.SHARED_STORAGE: "has no shared storage, which the task's environment is kept in",
}
"""What is said of a node without the ability, after its name, where its runner gave no reason of its own."""
