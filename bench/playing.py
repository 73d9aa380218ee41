"""Fake runners as the benches use them: what is to be played, and a handle on the process that plays it."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.measuring import ROOT

UNTIL_TOLD = -1.0
"""For `Play.task_seconds`: tasks run until `Playing.end_tasks` ends them."""


@dataclass(frozen=True)
class Play:
    """`nodes` nodes of `cores` cores at `port`, joined to the host with an administrator's token.

    Tasks run for `task_seconds`. With `own_addresses` each node has an address and connections of its own,
    as real ones do; the port is then open on all of this machine's addresses.
    """

    host_port: int
    token: str
    port: int
    nodes: int
    cores: int = 64
    gpus: int = 0
    beat_seconds: float = 5.0
    task_seconds: float = 0.0
    own_addresses: bool = False


@dataclass(frozen=True)
class Beats:
    """How long the heartbeats of some seconds took, and how many nodes did not reach the host."""

    seconds: list[float]
    nodes_away: int


class Playing:
    """A play that runs in another process. `pid` is that process."""

    def __init__(self, play: Play) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fake_runner"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self._news = threading.Condition()
        self._ready = False
        self._done: list[tuple[int, float]] = []
        self._ticks: list[dict[str, Any]] = []
        self._write(asdict(play))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._news:
                self._ready = self._ready or "ready" in told
                if "done" in told:
                    self._done.append((told["done"], told["at"]))
                if "running" in told:
                    self._ticks.append(told)
                self._news.notify_all()

    def end_tasks(self, count: int, over_seconds: float) -> None:
        """Have that many running tasks complete, spread evenly over the time."""
        self._write({"end": count, "over": over_seconds})

    @property
    def done(self) -> int:
        with self._news:
            return self._done[-1][0] if self._done else 0

    def beats(self, since: float, until: float) -> Beats:
        """The heartbeats of a span of the monotonic clock."""
        with self._news:
            ticks = [tick for tick in self._ticks if since <= tick["at"] <= until]
        return Beats([beat for tick in ticks for beat in tick["beats"]], max(t["away"] for t in ticks))

    def await_ready(self, seconds: float = 180) -> None:
        self._wait(lambda: self._ready, seconds, "the fake runners have not joined")

    def await_running(self, count: int, seconds: float = 180) -> None:
        """Wait until so many tasks run at once."""
        self._wait(
            lambda: bool(self._ticks) and self._ticks[-1]["running"] >= count, seconds, "too few tasks run"
        )

    def await_all_back(self, away_since: float, seconds: float = 180) -> float:
        """Wait until every node reached the host after some were unreachable; returns when that was."""

        def back_at() -> float | None:
            ticks = [tick for tick in self._ticks if tick["at"] >= away_since]
            gone = next((index for index, tick in enumerate(ticks) if tick["away"]), None)
            if gone is None:
                return None
            return next((tick["at"] for tick in ticks[gone:] if not tick["away"]), None)

        self._wait(lambda: back_at() is not None, seconds, "not all nodes came back")
        at = back_at()
        assert at is not None
        return at

    def await_done(self, count: int, seconds: float = 300) -> float:
        """Wait until so many tasks were acknowledged as ended since the start; returns when that was."""
        self._wait(lambda: bool(self._done) and self._done[-1][0] >= count, seconds, "tasks have not ended")
        return next(at for done, at in self._done if done >= count)

    def _wait(self, condition: Callable[[], bool], seconds: float, fault: str) -> None:
        deadline = time.monotonic() + seconds
        with self._news:
            while not condition():
                self._news.wait(0.5)
                if self._process.poll() is not None:
                    raise RuntimeError(f"{fault}: they failed, see above")
                if time.monotonic() > deadline:
                    done = self._done[-1][0] if self._done else 0
                    last = {name: v for name, v in (self._ticks or [{}])[-1].items() if name != "beats"}
                    raise TimeoutError(f"{fault} ({done} ends so far; {last})")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._reader.join()


@contextlib.contextmanager
def playing(play: Play) -> Iterator[Playing]:
    """Fake runners that have joined; ended at the end."""
    played = Playing(play)
    try:
        played.await_ready()
        yield played
    finally:
        played.end()
