"""What the routes work with, handed over by the composition root; nothing here is global."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kohakuriver.host.api.http.answer_cache import AnswerCache, KeptTexts, NodeTexts
from kohakuriver.host.api.http.own_names import OwnNames
from kohakuriver.host.api.http.request_figures import RequestFigures
from kohakuriver.host.api.http.shares import Shares, shares_of_nodes, shares_of_tunnels, shares_of_users
from kohakuriver.host.audit import AuditLog
from kohakuriver.host.auth import AuthService
from kohakuriver.host.durations import LoopLag
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.trust.call_windows import CallWindows
from kohakuriver.wire.trust.host_proof import ProofAnswer, ProofQuestion

if TYPE_CHECKING:
    from kohakuriver.host.api.events.feed import EventFeed
    from kohakuriver.host.api.tasks.output import OutputReader
    from kohakuriver.host.control import ClusterControl
    from kohakuriver.host.environments.service import EnvironmentService
    from kohakuriver.host.registries.credentials import RegistryCredentials
    from kohakuriver.host.retention import Retention


class Gateway(Protocol):
    """What clients need to know of the SSH gateway."""

    @property
    def port(self) -> int: ...

    @property
    def public_key(self) -> str:
        """Of the gateway itself, as `type base64`."""


class StoreFigures(Protocol):
    """How large the store is, in bytes."""

    @property
    def file_bytes(self) -> int: ...

    @property
    def log_bytes(self) -> int: ...

    @property
    def free_bytes(self) -> int: ...


class Runners(Protocol):
    """Calls and streams to the runner of any node (`host.dispatch.runners`)."""

    async def open_stream(self, node: str, target: str) -> Channel: ...

    async def call(
        self,
        node: str,
        method: str,
        target: str,
        body: bytes = b"",
        seconds: float = 60.0,
        *,
        max_bytes: int = ...,
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ApiParts:
    """Everything that a route may reach. `faults`: (part, sentence) for each part that does not work now.

    `reachable_at`: address and port at which other machines reach this host. `store_size` looks at the
    store's files; it blocks.
    """

    control: "ClusterControl"
    auth: AuthService
    environments: "EnvironmentService"
    output: "OutputReader"
    events: "EventFeed"
    faults: Callable[[], list[tuple[str, str]]]
    runners: Runners
    retention: "Retention"
    registries: "RegistryCredentials"
    prove: Callable[[ProofQuestion], ProofAnswer]
    """Answers who this host is; raises InvalidInput for a key that is none."""
    gateway: "Gateway | None" = None
    """The SSH gateway; None where it does not listen."""
    reachable_at: tuple[str, int] = ("127.0.0.1", 8000)
    store_size: Callable[[], StoreFigures | None] = lambda: None
    default_environment: str = "kohakuriver-base"
    session_expire_hours: int = 720
    cache: AnswerCache = field(default_factory=AnswerCache)
    node_texts: NodeTexts = field(default_factory=NodeTexts)
    task_texts: KeptTexts = field(default_factory=KeptTexts)
    requests: RequestFigures = field(default_factory=RequestFigures)
    own_names: OwnNames = field(default_factory=OwnNames)
    lag: LoopLag = field(default_factory=LoopLag)
    runner_calls: CallWindows = field(default_factory=CallWindows)
    node_shares: Shares = field(default_factory=shares_of_nodes)
    user_shares: Shares = field(default_factory=shares_of_users)
    tunnel_shares: Shares = field(default_factory=shares_of_tunnels)
    audit: AuditLog = field(default_factory=AuditLog)
