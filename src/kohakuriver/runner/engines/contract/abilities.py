"""What an engine can do beside running commands, and for what it cannot, a sentence for who asks for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kohakuriver.models.abilities import Ability
from kohakuriver.models.errors import SwitchedOff
from kohakuriver.runner.engines.contract.spec import WorkloadSpec


class EngineAbility(Enum):
    PAUSE = "pause"
    INPUTS = "inputs"
    PROCESSES = "processes"
    FILES = "files"
    PORTS = "ports"
    VPS = "vps"
    SNAPSHOTS = "snapshots"


ANNOUNCED = {EngineAbility.VPS: Ability.VPS, EngineAbility.INPUTS: Ability.INPUTS}
"""Those that work needs in order to begin: they decide where it is placed, so the host gets to know them. The
others decide what can be asked of work that runs, and whoever asks is told."""


@dataclass(frozen=True, slots=True)
class EngineAbilities:
    """An ability is there unless it is among the `lacking` ones, each with the sentence that refuses it."""

    lacking: Mapping[EngineAbility, str] = field(default_factory=dict)

    def __contains__(self, ability: EngineAbility) -> bool:
        return ability not in self.lacking

    def require(self, *abilities: EngineAbility) -> None:
        """Raise SwitchedOff for the first that is lacking."""
        for ability in abilities:
            if ability in self.lacking:
                raise SwitchedOff(self.lacking[ability])


def needed_for(spec: WorkloadSpec) -> Iterator[EngineAbility]:
    """What an engine must be able to do before it can make this workload; each of them is `ANNOUNCED`."""
    if spec.session is not None:
        yield EngineAbility.VPS
    if spec.has_input:
        yield EngineAbility.INPUTS
