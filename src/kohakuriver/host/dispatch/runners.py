"""What the API asks of runners beside orders: single calls, and streams."""

from collections.abc import Mapping

import msgspec

from kohakuriver.host.control import RunnerControl
from kohakuriver.host.dispatch.runner_link import MAX_ANSWER_BYTES, Bounds, RunnerLink, dial_url
from kohakuriver.host.dispatch.runner_streams import RunnerStreams
from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NotFound,
    TooLarge,
    Unavailable,
)
from kohakuriver.wire.bounds import cut
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.messages import decode
from kohakuriver.wire.trust.identity import LinkKeys

_LONGEST_CALL_SECONDS = 3600.0
_BY_STATUS: Mapping[int, type[KohakuRiverError]] = {
    kind.http_status: kind
    for kind in (InvalidInput, Denied, NotFound, Conflict, TooLarge, EngineFault, Unavailable)
}


class _Refusal(msgspec.Struct):
    detail: str = ""


class Runners:
    """Calls are sealed and their answers proven, streams sealed. `close` ends the connections of all."""

    def __init__(self, known: RunnerControl) -> None:
        self._known = known
        self._link = RunnerLink(_LONGEST_CALL_SECONDS)
        self._streams = RunnerStreams(self._whereabouts)

    async def close(self) -> None:
        await self._link.close()
        await self._streams.close()

    async def open_stream(self, node: str, target: str) -> Channel:
        """Open the stream at `target` (path and query); raises Unavailable if the node is unreachable."""
        return await self._streams.open(node, target)

    async def call(
        self,
        node: str,
        method: str,
        target: str,
        body: bytes = b"",
        seconds: float = 60.0,
        *,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """Return the body of the answer; raises what the runner refuses with, or Unavailable.

        `max_bytes`: what it may return; of an answer that is larger nothing is read.
        """
        keys, where = self._whereabouts(node)
        if keys is None or where is None:
            raise Unavailable(f"node {node} has not registered")
        url = dial_url(*where) + target
        status, content, _ = await self._link.request(
            node, keys, method, url, body, Bounds(seconds, max_bytes)
        )
        if status >= 400:
            raise _BY_STATUS.get(status, EngineFault)(_sentence(node, status, content))
        return content

    def _whereabouts(self, node: str) -> tuple[LinkKeys | None, tuple[str, str] | None]:
        return self._known.link_keys(node), self._known.dispatch_address(node)


def _sentence(node: str, status: int, content: bytes) -> str:
    try:
        detail = cut(decode(content, _Refusal).detail)
    except InvalidInput:
        detail = ""
    return detail or f"the runner of node {node} answered {status}"
