"""Which clients of sandboxes have connected, which are waited for, and which should have come by now.

A client may come before the engine has told the address of its sandbox, and a workload before the client of
its sandbox. Both wait for the other, for a moment only: a client that does not come up holds nobody up.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_STARTING_SECONDS = 2.0
"""For the engine to tell the address of a sandbox whose client is there already."""
COMING_SECONDS = 0.5
"""From when a sandbox is known, for its client to connect, before a workload starts without it."""
LATE_SECONDS = 20.0
"""After which it is said."""
_NAMED = 3


@dataclass(slots=True)
class _Client:
    """`away_since`: when its sandbox became known, or it was connected last; None: it is connected."""

    sandbox: str
    away_since: float | None
    has_come: asyncio.Event = field(default_factory=asyncio.Event)


class Arrivals:
    """One per runner, told by `SandboxTunnels`. Clients go by the ids of their sandboxes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._starting: dict[str, asyncio.Event] = {}  # by name
        self._do_come = True

    def expect(self, sandbox_id: str, name: str) -> None:
        self._clients[sandbox_id] = _Client(name, self._clock())

    def forget(self, sandbox_id: str) -> None:
        self._clients.pop(sandbox_id, None)

    def came(self, sandbox_id: str) -> None:
        self._do_come = True
        if (client := self._clients.get(sandbox_id)) is not None:
            client.away_since = None
            client.has_come.set()

    def went(self, sandbox_id: str) -> None:
        if (client := self._clients.get(sandbox_id)) is not None:
            client.away_since = self._clock()

    @contextmanager
    def starting(self, name: str) -> Iterator[None]:
        """Around the start of a sandbox, until it is known."""
        known = self._starting[name] = asyncio.Event()
        try:
            yield
        finally:
            del self._starting[name]
            known.set()

    async def until_known(self, name: str) -> None:
        """Wait for a sandbox that is being started."""
        if (known := self._starting.get(name)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STARTING_SECONDS):
                    await known.wait()

    async def until_connected(self, sandbox_id: str) -> None:
        """Wait for the client of a sandbox that has just been made.

        Where that was in vain nobody waits for another, until one comes.
        """
        client = self._clients.get(sandbox_id)
        if client is None or client.away_since is None or client.has_come.is_set() or not self._do_come:
            return
        rest = client.away_since + COMING_SECONDS - self._clock()
        if rest <= 0:
            return
        try:
            async with asyncio.timeout(rest):
                await client.has_come.wait()
        except TimeoutError:
            self._do_come = False

    def notices(self) -> list[str]:
        """Which clients should have come up, or come back, by now."""
        latest = self._clock() - LATE_SECONDS
        late = [
            client.sandbox
            for client in self._clients.values()
            if client.away_since is not None and client.away_since <= latest
        ]
        if not late:
            return []
        more = f" and {len(late) - _NAMED} others" if len(late) > _NAMED else ""
        return [
            f"the tunnel client does not connect in {', '.join(late[:_NAMED])}{more}; ports of the workloads "
            "there cannot be forwarded"
        ]
