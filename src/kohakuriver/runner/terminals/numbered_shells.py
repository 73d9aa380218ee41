"""The terminal sessions of a node, by the numbers under which their clients come back.

A number is 16 random bytes and good only for its own workload. Sessions end with their workload, with the
runner, and after `IDLE_SECONDS` without a client.
"""

import asyncio
import secrets
from collections.abc import Callable

import structlog

from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.terminals.shell import Shell

IDLE_SECONDS = 1800.0
MOST_PER_WORKLOAD = 32
_NUMBER_BYTES = 16
_CLOSE_SECONDS = 5.0
_log = structlog.get_logger(__name__)


class Shells:
    def __init__(self, engine_of: Callable[[TaskId], Engine], idle_seconds: float = IDLE_SECONDS) -> None:
        self._engine_of = engine_of
        self._idle_seconds = idle_seconds
        self._shells: dict[tuple[TaskId, str], Shell | None] = {}
        self._lives: dict[tuple[TaskId, str], asyncio.Task[None]] = {}

    async def begin(self, task_id: TaskId, rows: int, cols: int) -> Shell:
        """Start a shell; raises what `Processes.open` raises, Conflict where there are too many."""
        self._make_room(task_id)
        key = (task_id, secrets.token_hex(_NUMBER_BYTES))
        self._shells[key] = None
        try:
            request = ExecRequest(rows=max(rows, 1), cols=max(cols, 1))
            process = await self._engine_of(task_id).processes.open(task_id, request)
        except BaseException:
            del self._shells[key]
            raise
        shell = Shell(key[1], process, self._idle_seconds)
        self._shells[key] = shell
        life = asyncio.get_running_loop().create_task(self._live(key, shell), name="terminal session")
        self._lives[key] = life
        return shell

    def numbers(self, task_id: TaskId) -> list[str]:
        """Of the workload's sessions, those too whose shell is being started; oldest first."""
        return [number for of, number in self._shells if of == task_id]

    def find(self, task_id: TaskId, number: str) -> Shell:
        """Raises NotFound for one that is over, or is another workload's."""
        shell = self._shells.get((task_id, number))
        if shell is None or shell.is_over:
            raise NotFound(f"task {task_id} has no terminal session {number[:40]}; begin a new one")
        return shell

    async def close(self) -> None:
        """Hang up all shells; an engine that does not answer is not waited for."""
        lives = list(self._lives.values())
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives, timeout=_CLOSE_SECONDS)

    def _make_room(self, task_id: TaskId) -> None:
        numbers = self.numbers(task_id)
        if len(numbers) < MOST_PER_WORKLOAD:
            return
        for number in numbers:
            shell = self._shells[task_id, number]
            if shell is not None and shell.has_ended:
                shell.hang_up()
                del self._shells[task_id, number]
                return
        raise Conflict(f"task {task_id} has {MOST_PER_WORKLOAD} terminals, the most there can be; end one")

    async def _live(self, key: tuple[TaskId, str], shell: Shell) -> None:
        try:
            await shell.run()
        except Exception:  # noqa: BLE001 - boundary of one session
            _log.exception("terminal_session_failed", task_id=str(key[0]))
        finally:
            self._shells.pop(key, None)
            self._lives.pop(key, None)
