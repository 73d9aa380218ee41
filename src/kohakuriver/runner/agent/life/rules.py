"""What differs between the life of a task and that of a VPS, as a value. Pure."""

from dataclasses import dataclass

from kohakuriver.runner.engines.contract.abilities import EngineAbilities, EngineAbility
from kohakuriver.runner.engines.contract.spec import WorkloadSpec

_VPS_KILL_GRACE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """What the settings say of snapshots: whether a stop makes one, and how many are kept (0: none)."""

    at_stop: bool = True
    keep: int = 3

    @property
    def keeps_at_stop(self) -> bool:
        return self.at_stop and self.keep > 0


@dataclass(frozen=True, slots=True)
class LifeRules:
    """The rules of one life; those of a task are what stands here."""

    is_made_ready: bool = False
    """It counts as running only once it was set up, and is set up again after each further start."""
    stops_in_order: bool = False
    """It may be asked to stop, and an end that nobody asked for is a stop as well."""
    is_started_again: bool = False
    """What fell with its engine or node, or could not be kept, goes on where it was."""
    keeping: KeepingRules = KeepingRules(at_stop=False, keep=0)
    """What it held is kept in a snapshot before it ends, or it does not end."""
    kill_grace_seconds: int | None = None
    """Of a kill that says none; None: the workload's own."""
    vanished: str = "the workload vanished from its engine while its runner was down"


TASK = LifeRules()


def rules_for(spec: WorkloadSpec, abilities: EngineAbilities, keeping: KeepingRules) -> LifeRules:
    """`abilities`: of its engine. `keeping`: what the settings of this node say."""
    if spec.session is None:
        return TASK
    return LifeRules(
        is_made_ready=True,
        stops_in_order=True,
        is_started_again=True,
        keeping=keeping if EngineAbility.SNAPSHOTS in abilities else KeepingRules(keep=0),
        # A kill gives the VPS up; who wants it ended in order has it stopped.
        kill_grace_seconds=_VPS_KILL_GRACE_SECONDS,
        vanished="the VPS's container vanished while its runner was down; start the VPS again",
    )
