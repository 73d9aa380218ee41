"""What the routes work with, handed over by the composition root; nothing here is global."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kohakuriver.host.api.answer_cache import AnswerCache
from kohakuriver.host.auth import AuthService
from kohakuriver.models.enums import Stream
from kohakuriver.models.ids import TaskId

if TYPE_CHECKING:
    from kohakuriver.host.api.output import OutputReader
    from kohakuriver.host.control import ClusterControl
    from kohakuriver.host.environments.service import EnvironmentService


class RemoteLogs(Protocol):
    """Reads output that lies on a node, through its runner."""

    async def fetch_log(
        self, node: str, task_id: TaskId, stream: Stream, offset: int, length: int
    ) -> tuple[bytes, int]:
        """Return the bytes there are in that range, and the size of the whole stream now."""


@dataclass(frozen=True, slots=True)
class ApiParts:
    """Everything that a route may reach. `faults`: (part, sentence) for each part that does not work now.

    `reachable_at`: address and port at which other machines reach this host.
    """

    control: "ClusterControl"
    auth: AuthService
    environments: "EnvironmentService"
    output: "OutputReader"
    faults: Callable[[], list[tuple[str, str]]]
    reachable_at: tuple[str, int] = ("127.0.0.1", 8000)
    cache: AnswerCache = field(default_factory=AnswerCache)
