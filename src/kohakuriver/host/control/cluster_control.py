"""The control room: the one writer of the cluster's state, and the places where the host asks it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from kohakuriver.host.control import restored
from kohakuriver.host.control.accounts.account_control import AccountControl
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.figures import ControlFigures
from kohakuriver.host.control.loop import ControlLoop, LoopRules
from kohakuriver.host.control.nodes.node_control import NodeControl
from kohakuriver.host.control.nodes.pending_runners import PendingRunners
from kohakuriver.host.control.nodes.runner_control import RunnerControl
from kohakuriver.host.control.nodes.watch import NodeWatch, WatchSettings
from kohakuriver.host.control.state import ClusterState, load
from kohakuriver.host.control.tasks.task_control import TaskControl
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.vps.vps_control import VpsControl
from kohakuriver.host.store import queries
from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.store import Store
from kohakuriver.models.ids import TaskId, TaskIdGenerator
from kohakuriver.models.output.places import output_folders
from kohakuriver.wire.trust.identity import Identity


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What the control room needs to know of the configuration.

    `must_match`: the settings that each runner must have alike, by name.
    """

    shared_dir: str
    default_environment: str
    heartbeat_timeout_factor: int
    heartbeat_interval_seconds: float
    check_interval_seconds: float
    waiting_limits: WaitingLimits = field(default_factory=WaitingLimits)
    must_match: Mapping[str, object] = field(default_factory=dict)


class ClusterControl:
    """Open with `open_control`; `run` serves until it is cancelled.

    `loop` makes the changes; all others ask it. `on_news` hears of each turn after which clients would see
    something else.
    """

    def __init__(
        self,
        store: Store,
        state: ClusterState,
        identity: Identity,
        settings: ControlSettings,
        last_id: int,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self._clock = clock
        self._shared_dir = settings.shared_dir
        self._ids = TaskIdGenerator(0, last_id)
        self._told = (0, 0)
        self.on_news: Callable[[], None] = lambda: None
        self.cluster_id = state.cluster_id
        self.host_public_key = identity.public_key
        rules = LoopRules(self._new_id, self._output_paths, self._committed, self._turned, self._reloaded)
        self.loop = loop = ControlLoop(store, state, clock, rules)
        self.accounts = AccountControl(loop)
        waiting = PendingRunners(clock.monotonic)
        self.tasks = TaskControl(loop, store, settings.waiting_limits)
        self.vps = VpsControl(loop, settings.waiting_limits)
        self.nodes = NodeControl(loop, identity, waiting)
        self.runners = RunnerControl(
            loop, self._ids, identity, waiting, settings.must_match, settings.default_environment
        )
        self.figures = ControlFigures(loop)
        watched = WatchSettings(
            settings.check_interval_seconds,
            settings.heartbeat_interval_seconds,
            settings.heartbeat_timeout_factor,
        )
        self._watch = NodeWatch(loop, waiting, watched)

    async def run(self) -> None:
        """Run the loop and the looks at store and nodes; ends by cancellation only."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.loop.run())
            group.create_task(self.loop.watch.run())
            group.create_task(self._watch.run())

    def _new_id(self) -> TaskId:
        return self._ids.next(int(self._clock.now().timestamp() * 1000))

    def _output_paths(self, task_id: TaskId, attempt: int) -> tuple[str, str]:
        folder = "/".join((self._shared_dir, "logs", *output_folders(task_id, attempt)))
        return f"{folder}/stdout.log", f"{folder}/stderr.log"

    def _committed(self, changes: Changes) -> None:
        self.accounts.tell(changes)
        for node in {order.node for order in changes.new_orders.values()}:
            self.runners.wake_dispatch(node)
        self.tasks.endings.tell(changes)

    def _reloaded(self) -> None:
        self.accounts.on_loss()

    def _turned(self) -> None:
        marks = (self.loop.revision, self.loop.state.table.nodes_version)
        if marks != self._told:
            self._told = marks
            self.on_news()


async def open_control(
    store: Store,
    cluster_id: str,
    identity: Identity,
    settings: ControlSettings,
    clock: Clock | None = None,
) -> ClusterControl:
    """Read the state from the store, make the control room over it, and do what a restored state needs."""
    read_state = partial(load, cluster_id=cluster_id, known={})
    state = await store.read(read_state)
    last_id = await store.read(queries.newest_id)
    if state.restored is not None:
        last_id = max(last_id, state.restored.highest_id)
    control = ClusterControl(store, state, identity, settings, last_id, clock)
    await control.loop.turn_before_run(restored.settle)
    return control
