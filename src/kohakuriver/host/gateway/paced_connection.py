"""What asyncssh leaves to its users: not writing without bounds to a client that does not read."""

import asyncio
from collections.abc import Callable

import asyncssh


class PacedConnection(asyncssh.SSHServerConnection):
    """An SSH connection from `address` that tells whether its client reads: `room` is set while it does.

    `login_is_over` is to be called once, when its user has logged in or is gone.
    """

    def __init__(
        self, options: asyncssh.SSHServerConnectionOptions, address: str, login_is_over: Callable[[], None]
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.address = address
        self.login_is_over = login_is_over
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
