"""How late the event loop is: everything the host answers waits at least that long."""

import asyncio

from kohakuriver.host.durations import Durations

_INTERVAL_SECONDS = 0.5


class LoopLag:
    """`run` measures until it is cancelled."""

    def __init__(self) -> None:
        self.lateness = Durations()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _INTERVAL_SECONDS
            await asyncio.sleep(_INTERVAL_SECONDS)
            self.lateness.add(max(0.0, loop.time() - due))
