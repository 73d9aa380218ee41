"""What the agent is made of and does not make itself."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.agent.order_spec import NodeFacts, TaskSettings
from kohakuriver.runner.agent.start_row import StartRow
from kohakuriver.runner.engines.engines import Opener
from kohakuriver.wire.messages import TaskReport


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What the agent is given. `facts` tells what the node has now; `send_reports` gives the host's count.

    `engines`: what opens each of the node's engines, by its name.
    """

    engines: Mapping[str, Opener]
    settings: TaskSettings
    facts: Callable[[], NodeFacts]
    send_reports: Callable[[list[TaskReport]], Awaitable[int]]
    keeping: KeepingRules = field(default_factory=KeepingRules)
    starts: StartRow = field(default_factory=StartRow)
