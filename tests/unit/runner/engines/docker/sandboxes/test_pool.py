"""The pool of sandboxes over an engine that fails and hangs: nobody waits for ever, and nothing is lost."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kohakuriver.models.errors import EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.of_vps import VpsSandboxes
from kohakuriver.runner.engines.docker.sandboxes.pool import SandboxPool
from support.model.virtual_time import VirtualLoop

SIZE = 2
TRIM_SECONDS = 20.0
# Longer than all pauses and limits of the pool together.
LONG_SECONDS = 1500.0
FAILURES: dict[str, BaseException] = {
    "refused": EngineFault("the engine refuses"),
    "away": Unavailable("the engine does not answer"),
    "unreadable": ProcessLookupError(3, "No such process"),
    "full": OSError(28, "No space left on device"),
    "nonsense": ValueError("not JSON"),
}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of warnings with tracebacks take longer to print than all that is tested here."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: object) -> str:
    raise structlog.DropEvent


class FakeContainers:
    """Sandboxes of an engine whose moods are set: `mood` of a make, `stuck` for calls that never return."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.dead: set[str] = set()
        self.dirty: set[str] = set()
        self.mood = "well"
        self.removes = "well"
        self.looks = "well"
        self.made = 0
        self.make_seconds = 0.5

    async def make(self, doom: Callable[[str], object], _request: object = None) -> Sandbox:
        self.made += 1
        identity = f"sandbox-{self.made}"
        self.there.add(identity)
        try:
            await self._act(self.mood, self.make_seconds)
        except BaseException:
            doom(identity)
            raise
        return Sandbox(identity, identity, identity, "10.0.0.2", None)

    async def _act(self, mood: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if mood == "stuck":
            await asyncio.Event().wait()
        if mood in FAILURES:
            raise FAILURES[mood]

    async def read(self, container_id: str) -> Sandbox:
        if container_id not in self.there:
            raise NotFound("no such container")
        return Sandbox(container_id, container_id, container_id, "10.0.0.2", None)

    async def destroy(self, container_id: str) -> None:
        await self._act(self.removes, 0.2)
        self.there.discard(container_id)

    async def traces_in(self, sandbox: Sandbox) -> list[str]:
        await self._act(self.looks, 0.05)
        return ["a socket"] if sandbox.id in self.dirty else []

    def is_ready(self, sandbox: Sandbox) -> bool:
        return sandbox.id not in self.dead


class World:
    """A pool over the fake, on a loop whose time is ours."""

    def __init__(self, size: int = SIZE) -> None:
        self.loop = VirtualLoop()
        self.containers = FakeContainers()
        self.size = size
        self.pool = SandboxPool(self.containers, size, TRIM_SECONDS)  # type: ignore[arg-type]
        self.waiting: list[asyncio.Task[Sandbox]] = []
        self.serving: list[Sandbox] = []
        self.errors: list[BaseException] = []
        self.loop.run_until_complete(self.pool.open([]))
        self.loop.settle()

    def take(self) -> asyncio.Task[Sandbox]:
        task = self.loop.do(self.pool.take())
        self.waiting.append(task)
        self.sort_out()
        return task

    def sort_out(self) -> None:
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.serving.append(task.result())
            else:
                self.errors.append(error)

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.sort_out()

    def heal(self) -> None:
        self.containers.mood = self.containers.removes = self.containers.looks = "well"

    def end(self) -> None:
        if not self.loop.is_closed():
            self.loop.run_until_complete(_closed(self.pool))
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.close()


async def _closed(pool: SandboxPool) -> None:
    # (time must pass in here, for the fake takes some)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.let_time_pass()
    await pool.close()


class PoolLife(RuleBasedStateMachine):
    """Any row of takes, cancels, ends, deaths and moods of the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule()
    def take(self) -> None:
        self.world.take()

    @rule(count=st.integers(2, 8))
    def burst(self, count: int) -> None:
        for _ in range(count):
            self.world.take()

    @precondition(lambda self: self.world.waiting)
    @rule(data=st.data(), settled=st.booleans())
    def cancel(self, data: st.DataObject, settled: bool) -> None:
        data.draw(st.sampled_from(self.world.waiting)).cancel()
        if settled:
            self.world.loop.settle()
            self.world.sort_out()

    @precondition(lambda self: self.world.serving)
    @rule(data=st.data(), reusable=st.booleans(), dirty=st.booleans(), cut=st.booleans())
    def give_back(self, data: st.DataObject, reusable: bool, dirty: bool, cut: bool) -> None:
        sandbox = data.draw(st.sampled_from(self.world.serving))
        self.world.serving.remove(sandbox)
        if dirty:
            self.world.containers.dirty.add(sandbox.id)
        task = self.world.loop.do(self.world.pool.give_back(sandbox, reusable=reusable))
        if cut:
            task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        if self.world.pool.idle:
            self.world.containers.dead.add(data.draw(st.sampled_from(self.world.pool.idle)).id)

    @rule(mood=st.sampled_from(["well", "stuck", *FAILURES]))
    def makes(self, mood: str) -> None:
        self.world.containers.mood = mood

    @rule(mood=st.sampled_from(["well", "away", "refused", "nonsense"]))
    def removes(self, mood: str) -> None:
        self.world.containers.removes = mood

    @rule(mood=st.sampled_from(["well", "unreadable", "nonsense"]))
    def looks(self, mood: str) -> None:
        self.world.containers.looks = mood

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.6, 2.0, 30.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @invariant()
    def nothing_serves_two(self) -> None:
        idle = [sandbox.id for sandbox in self.world.pool.idle]
        serving = [sandbox.id for sandbox in self.world.serving]
        assert len(set(idle + serving)) == len(idle + serving)
        assert set(serving) <= self.world.containers.there

    @invariant()
    def whoever_waits_has_a_sandbox_or_an_error_to_come(self) -> None:
        assert all(isinstance(error, KohakuRiverError) for error in self.world.errors)

    def teardown(self) -> None:
        world = self.world
        if world.loop.is_closed():
            return
        world.heal()
        world.advance(LONG_SECONDS)
        assert world.waiting == [], "somebody was left waiting"
        last = world.take()
        world.advance(5.0)
        assert last.done(), "an engine that is well again serves"
        assert last.exception() is None
        world.advance(LONG_SECONDS)
        assert world.pool.faults() == []
        serving = {sandbox.id for sandbox in world.serving}
        idle = {sandbox.id for sandbox in world.pool.idle}
        assert len(idle) == world.size, "the pool is back at its size"
        assert world.containers.there == serving | idle, "what was made and is not used was removed"
        world.end()
        assert world.containers.there == serving, "closing removes what is idle and nothing that serves"


PoolLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestPoolLife = PoolLife.TestCase


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.heal()
    made.end()


@pytest.fixture
def without_pool() -> Iterator[World]:
    made = World(size=0)
    yield made
    made.heal()
    made.end()


@pytest.mark.parametrize("mood", [*FAILURES, "stuck"])
@pytest.mark.parametrize("size", [0, SIZE])
def test_a_failure_of_any_kind_wakes_who_waits_and_the_next_is_served(size: int, mood: str) -> None:
    world = World(size)
    world.containers.mood = mood
    for _ in range(5):
        world.take()
    world.advance(61.0)
    assert len(world.errors) == 5
    assert all(isinstance(error, Unavailable) for error in world.errors)
    assert any("sandboxes cannot be made" in fault for fault in world.pool.faults())
    world.heal()
    task = world.take()
    world.advance(61.0)
    assert task.done()
    assert task.exception() is None
    world.end()


@pytest.mark.parametrize("seconds", [90.0, 500.0])
def test_a_machine_that_is_too_busy_to_be_quick_serves_all_the_same(world: World, seconds: float) -> None:
    """Each sandbox that is cut off and begun anew adds to what the machine is busy with."""
    world.containers.make_seconds = seconds
    world.take()
    world.advance(LONG_SECONDS)
    assert world.pool.idle, "one was ready in the end"
    assert world.pool.faults() == []
    world.errors.clear()
    for _ in range(SIZE + 3):
        world.take()
    world.advance(LONG_SECONDS)
    assert world.errors == [], "nobody is sent away while sandboxes come, however slowly"
    assert world.waiting == []


def test_a_fault_ends_by_itself_though_nobody_asks(without_pool: World) -> None:
    without_pool.containers.mood = "refused"
    without_pool.take()
    without_pool.advance(1.0)
    assert without_pool.pool.faults()
    without_pool.heal()
    without_pool.advance(LONG_SECONDS)
    assert without_pool.pool.faults() == []
    assert without_pool.containers.there == set()


def test_sandboxes_that_died_while_idle_cost_the_taker_no_wake_up(world: World) -> None:
    for _ in range(3):
        world.take()
    world.advance(5.0)
    for sandbox in tuple(world.serving):
        world.loop.do(world.pool.give_back(sandbox, reusable=True))
    world.serving.clear()
    world.advance(1.0)
    world.containers.dead |= {sandbox.id for sandbox in world.pool.idle}
    world.containers.removes = "stuck"  # an engine that does not get rid of them keeps nobody waiting
    task = world.take()
    world.advance(2.0)
    assert task.done()
    assert task.exception() is None


def test_a_taker_that_is_cancelled_as_it_is_served_passes_its_sandbox_on(world: World) -> None:
    world.advance(5.0)
    for _ in range(SIZE):
        world.take()
    world.containers.mood = "stuck"  # nothing new comes
    first, second = world.take(), world.take()
    given = world.serving.pop()

    async def hand_over() -> None:
        await world.pool.give_back(given, reusable=True)
        first.cancel()  # it has its sandbox and has not run since

    handing = world.loop.create_task(hand_over())
    world.loop.advance(1.0)
    assert handing.done()
    assert first.cancelled()
    assert second.result() is given


def test_a_keeper_that_breaks_says_so_and_begins_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.pool, "missing", lambda: 1 / 0)
    task = world.take()
    world.advance(0.5)
    assert isinstance(task.exception(), Unavailable)
    assert any("begins again" in fault for fault in world.pool.faults())
    monkeypatch.undo()
    world.advance(LONG_SECONDS)
    assert world.pool.faults() == []
    assert len(world.pool.idle) == SIZE


def test_a_remove_that_hangs_does_not_keep_others_from_being_made(world: World) -> None:
    world.containers.removes = "stuck"
    world.take()
    world.advance(5.0)
    world.loop.do(world.pool.give_back(world.serving.pop(), reusable=False))
    world.advance(5.0)
    for _ in range(4):
        world.take()
    world.advance(5.0)
    assert world.waiting == []
    assert world.errors == []


@pytest.mark.parametrize("mood", [*(mood for mood in FAILURES if mood != "nonsense"), "stuck"])
def test_no_workload_is_blamed_for_a_sandbox_of_its_own_that_cannot_be_made(world: World, mood: str) -> None:
    """What is told is tried again, and then it is the node's doing: see `attempt_life`."""
    world.containers.mood = mood
    own = VpsSandboxes(world.containers, "10.0.0.0/30", world.pool)  # type: ignore[arg-type]
    making = world.loop.do(own.make("lab", None))
    world.advance(61.0)
    assert isinstance(making.exception(), Unavailable)


def test_a_sandbox_of_its_own_is_made_on_a_machine_that_is_too_busy_to_be_quick(world: World) -> None:
    world.containers.make_seconds = 90.0
    own = VpsSandboxes(world.containers, "10.0.0.0/30", world.pool)  # type: ignore[arg-type]
    for _ in range(2):
        making = world.loop.do(own.make("lab", None))
        world.advance(LONG_SECONDS)
    assert making.exception() is None
