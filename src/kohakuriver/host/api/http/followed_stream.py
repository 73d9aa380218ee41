"""An answer that goes on for as long as there is something to tell: its source ends with it, always.

A client that has left ends it. So does one that takes nothing for longer than the patience, where one is set;
without it such a client holds its own stream back and costs nothing but time. One that has lost the right to
it is cut off, and sees that its answer is not whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger()


class FollowedStream(Response):
    """Sends pieces as they are yielded, and closes the generator in any case.

    `refused`, where given, is awaited beside that; it returns, with the reason, when the right to it is lost.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        status: int,
        headers: Mapping[str, str],
        media_type: str,
        patience_seconds: float | None = None,
        refused: Callable[[], Coroutine[Any, Any, str]] | None = None,
    ) -> None:
        super().__init__(None, status, headers, media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._patience_seconds = patience_seconds
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        jobs = {asyncio.ensure_future(self._send_all(send)), asyncio.ensure_future(_client_left(receive))}
        if self._refused is not None:
            jobs.add(asyncio.ensure_future(_cut_off(self._refused)))
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._send(send, piece, more=True)
            await self._send(send, b"", more=False)
        except TimeoutError:
            log.info("stream_let_go", reason="the client took nothing", seconds=self._patience_seconds)

    async def _send(self, send: Send, piece: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._patience_seconds):
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def _cut_off(refused: Callable[[], Coroutine[Any, Any, str]]) -> None:
    log.info("stream_cut_off", reason=await refused())


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
