"""A stream of messages between two ends, whatever carries it: sealed WebSocket, or memory in tests.

Messages are text (control, JSON) or bytes (data), of at most `MAX_MESSAGE_BYTES`. One reader and one writer
at a time at each end. `send` waits while the other end does not read, so memory stays bounded.
"""

from typing import Protocol

from kohakuriver.models.errors import KohakuRiverError

MAX_MESSAGE_BYTES = 256 << 10
"""Longer data is sent in pieces of at most this size."""


class Channel(Protocol):
    """One end. Whoever opened it closes it."""

    async def send(self, message: str | bytes) -> None:
        """Raises Unavailable once the other end is gone."""

    async def receive(self) -> str | bytes | None:
        """Return the next message, None after an orderly end.

        Raises the error that the other end closed with, Unavailable if the connection broke.
        """

    async def close(self, error: KohakuRiverError | None = None) -> None:
        """End it in order, or with an error that the other end is to raise; free to call twice."""
