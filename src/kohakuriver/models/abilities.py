"""What work may need of a node beside room for it: a node has it or not, and it is never used up."""

from enum import StrEnum


class Ability(StrEnum):
    """Its value is its name on the wire. A new one is added here, with its sentence in `LACKS`; beside that,
    only what needs it (`TaskSpec.demand`) and what has it (the runner's description of itself, or what its
    engines have `ANNOUNCED`) know of it."""

    SHARED_STORAGE = "shared_storage"
    VPS = "vps"
    INPUTS = "inputs"


LACKS = {
    Ability.SHARED_STORAGE: "has no shared storage, which the task's environment is kept in",
    Ability.VPS: "has no engine that runs VPSs",
    Ability.INPUTS: "has no engine that gives a task its standard input",
}
"""What is said of a node without the ability, after its name, where its runner gave no reason of its own."""

HAD_BEFORE = frozenset({Ability.VPS, Ability.INPUTS})
"""What every runner had before there was a word for it: one that says nothing of it has it."""
