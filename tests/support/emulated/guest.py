"""The test's end of the line into the emulated machine; `guest_agent` is the other one.

Not for two threads. What is awaited has a deadline that is generous, since nobody promises how fast an
emulated machine is.
"""

import itertools
import json
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOT_SECONDS = 600.0
COMMAND_SECONDS = 300.0
_CALL_SECONDS = 120.0
_ENDED = ("completed", "failed", "killed", "killed_oom", "rejected", "lost", "stopped")
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Answer:
    """Of a command; `status` None: it ran past its time and was killed."""

    status: int | None
    stdout: str
    stderr: str

    @property
    def shown(self) -> str:
        return f"status {self.status}\n{self.stdout}\n{self.stderr}"


class Guest:
    """`alive` raises when the emulator has ended, so that nobody waits for what cannot come."""

    def __init__(self, line: socket.socket, alive: Callable[[], None]) -> None:
        self._line = line
        self._alive = alive
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting = b""
        self.boots: list[str] = []

    def await_boot(self, number: int = 1, seconds: float = BOOT_SECONDS) -> None:
        """Return when the machine has said for the `number`th time that it is up."""
        self._read_until(lambda: len(self.boots) >= number, f"boot {number} of the machine", seconds)

    def reboot(self) -> None:
        """An orderly one, by the machine's own systemd."""
        boots = len(self.boots)
        self._ask(argv=["systemctl", "reboot"], input="", seconds=COMMAND_SECONDS)
        self.await_boot(boots + 1)
        assert self.boots[-1] != self.boots[-2]

    def begin(self, *argv: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> int:
        """Start a command and return the number by which `end_of` knows it."""
        return self._ask(argv=list(argv), input=stdin, seconds=seconds)

    def end_of(self, number: int, seconds: float = COMMAND_SECONDS) -> Answer:
        told = self._answer(number, seconds)
        return Answer(told["status"], told["stdout"], told["stderr"])

    def run(self, *argv: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> Answer:
        """Run a command to its end as root, with the installed package on PATH."""
        return self.end_of(self.begin(*argv, stdin=stdin, seconds=seconds), seconds + 60)

    def check(self, *argv: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> str:
        """Run a command that must succeed and return its output."""
        answer = self.run(*argv, stdin=stdin, seconds=seconds)
        assert answer.status == 0, f"{' '.join(argv)}: {answer.shown}"
        return answer.stdout

    def read(self, path: str | Path) -> str:
        return self.check("cat", str(path))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the host's API from inside with the administrator's token; it must succeed."""
        return self._called("host", method, path, body)

    def try_api(self, method: str, path: str) -> Any:
        """The same; None while there is no host that gives a good answer."""
        told = self._call("host", method, path, None)
        return json.loads(told["body"]) if 200 <= told["status"] < 300 else None

    def engine(self, method: str, path: str, body: Any = None) -> Any:
        """Call the engine's API; it must succeed."""
        return self._called("engine", method, path, body)

    def submit(self, command: str, *arguments: str, **fields: Any) -> str:
        body = {"task_type": "command", "command": command, "arguments": list(arguments), **fields}
        return str(self.api("POST", "/api/submit", body)["task_ids"][0])

    def task(self, task_id: str) -> dict[str, Any]:
        return dict(self.api("GET", f"/api/status/{task_id}"))

    def output(self, task_id: str) -> str:
        """What the task has printed so far."""
        return str(self._call("host", "GET", f"/api/tasks/{task_id}/stdout", None)["body"])

    def await_task(self, task_id: str, *states: str, seconds: float = COMMAND_SECONDS) -> dict[str, Any]:
        """Return the task's record once it is in one of the states; without any: once it has ended."""
        wanted = states or _ENDED

        def reached() -> dict[str, Any] | None:
            record = self.task(task_id)
            if record["status"] not in wanted and record["status"] in _ENDED:
                raise AssertionError(f"task {task_id} is not {wanted}: {record}")
            return record if record["status"] in wanted else None

        return dict(self.wait_for(reached, f"task {task_id} to be {' or '.join(wanted)}", seconds))

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = COMMAND_SECONDS) -> Any:
        """Return the first true answer of `condition`."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(_PAUSE_SECONDS)
        return answer

    def _called(self, to: str, method: str, path: str, body: Any) -> Any:
        told = self._call(to, method, path, body)
        assert 200 <= told["status"] < 400, f"{method} {path}: {told['status']} {told['body']}"
        return json.loads(told["body"]) if told["body"] else None

    def _call(self, to: str, method: str, path: str, body: Any) -> dict[str, Any]:
        asked = self._ask(call=[method, path, body], to=to, seconds=_CALL_SECONDS)
        return self._answer(asked, _CALL_SECONDS + 60)

    def _ask(self, **request: Any) -> int:
        number = next(self._ids)
        self._line.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
        return number

    def _answer(self, number: int, seconds: float) -> dict[str, Any]:
        self._read_until(lambda: number in self._answers, "an answer of the machine", seconds)
        return self._answers.pop(number)

    def _read_until(self, reached: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            self._alive()
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
            if select.select([self._line], [], [], 1.0)[0]:
                self._take(self._line.recv(1 << 16))

    def _take(self, chunk: bytes) -> None:
        *lines, self._waiting = (self._waiting + chunk).split(b"\n")
        for line in lines:
            message = _message(line)
            if "boot" in message:
                self.boots.append(message["boot"])
            elif "id" in message:
                self._answers[message["id"]] = message


def _message(line: bytes) -> dict[str, Any]:
    """What was cut off by a reboot is no message."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
