"""The front door of either daemon, and the peers that it knows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kohakuriver.front_door import ConnectionLimits
from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed_calls import Caller
from support.host.api import api_harness
from support.messages.asgi_call import call
from support.messages.raw_http import head, serving

KEYS = Identity.generate().link_keys(Identity.generate().public_key, Side.HOST)
PIECE = b"a" * 65536
Honest = Callable[[], bytes]


def runner_app() -> Any:
    async def list_images() -> list[str]:
        return []

    def no_engine(_task_id: object) -> Any:
        raise Unavailable("there is no engine")

    nothing: dict[str, Any] = dict.fromkeys(
        ("take_orders", "sync_environment", "remove_environment", "vps", "leftovers")
    )
    return runner_api(
        RunnerServices(
            node="n1",
            keys=lambda: KEYS,
            list_images=list_images,
            faults=list,
            local_temp_dir=Path("/nonexistent"),
            engine_of=no_engine,
            **nothing,
        )
    )


class OurHost:
    """Makes calls to a runner, each good for being sent once."""

    def __init__(self) -> None:
        self._caller = Caller(Side.HOST)

    @classmethod
    async def known_to(cls, app: Any) -> "OurHost":
        """Learn the runner's epoch, as a host does by its first call."""
        host = cls()
        first = host._caller.call("n1", KEYS, "GET", "/healthz")
        answer = await call(app, "GET", "/healthz", {"Authorization": first.credential}, first.content)
        proven = host._caller.prove(first, KEYS, answer.status, answer.headers, 1 << 20)
        assert host._caller.must_call_again(first, proven)
        return host

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        sealed = self._caller.call("n1", KEYS, method, target, body)
        length = len(sealed.content)
        return head(method, target, Authorization=sealed.credential, Content_Length=length) + sealed.content


@contextlib.asynccontextmanager
async def daemon(
    kind: str, folder: Path, limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[str, Honest]]:
    """Serve a host or a runner; yields its address, and what makes an honest request there."""
    if kind == "runner":
        app = runner_app()
        our_host = await OurHost.known_to(app)
        async with serving(app, limits) as (address, _):
            yield address, partial(our_host.request, "GET", "/api/docker/images")
        return
    async with api_harness(folder) as harness, serving(harness.app, limits) as (address, _):
        yield address, partial(head, "GET", "/api/nodes", **harness.credential("vera"))


def on_daemon(
    kind: str, folder: Path, attack: Callable[[str, Honest], Any], limits: ConnectionLimits | None = None
) -> None:
    async def run() -> None:
        async with daemon(kind, folder, limits) as (address, honest):
            await attack(address, honest)

    as_the_daemons_do(run())


def as_the_daemons_do(attack: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attack)


both = pytest.mark.parametrize("kind", ["host", "runner"])
