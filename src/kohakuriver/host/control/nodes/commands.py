"""What administrators ask of nodes, as calls that return after the commit."""

from functools import partial

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.nodes import leaving as node_leaving
from kohakuriver.host.control.nodes import leftover_choice
from kohakuriver.models.enums import LeftoverChoice
from kohakuriver.models.tasks import Task


class NodeCommands:
    """Calls into the control loop; see `node_leaving` and `leftover_choice` for what they mean."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop

    async def drain(self, hostname: str, move: bool, by: str) -> list[Task]:
        """Close a node for new work; returns what is there still. Raises NotFound."""
        return await self._loop.call(partial(node_leaving.drain, hostname=hostname, move=move, by=by))

    async def undrain(self, hostname: str) -> None:
        await self._loop.call(partial(node_leaving.undrain, hostname=hostname))

    async def remove(self, hostname: str, force: bool) -> None:
        """Take a node out of the cluster; raises NotFound, or Conflict while it holds work."""
        await self._loop.call(partial(node_leaving.remove, hostname=hostname, force=force))

    async def decide_leftovers(self, hostname: str, source: str, choice: LeftoverChoice, by: str) -> int:
        """Returns how many workloads there are; raises NotFound, or Conflict while that node is here."""
        return await self._loop.call(
            partial(leftover_choice.decide, hostname=hostname, source=source, choice=choice, by=by)
        )
