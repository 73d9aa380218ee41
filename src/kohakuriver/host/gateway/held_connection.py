"""What asyncssh leaves to its users: not writing without bounds to a client that does not read."""

import asyncio
from collections.abc import Callable

import asyncssh


class HeldConnection(asyncssh.SSHServerConnection):
    """An SSH connection from `address` that tells whether its client reads: `room` is set while it does.

    `left_door` is to be called once, when its user has logged in or is gone.
    """

    def __init__(
        self, options: asyncssh.SSHServerConnectionOptions, address: str, left_door: Callable[[], None]
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.address = address
        self.left_door = left_door
        self.room = asyncio.Event()
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None = None) -> None:
        self.room.set()
        super().connection_lost(exc)

    async def reload_config(self) -> None:
        """Nothing: there is no configuration file whose sections could depend on the user."""
