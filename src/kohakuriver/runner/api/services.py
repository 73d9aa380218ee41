"""What the routes of the runner's API are made of: the services that they hand on to, and their answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.streams import StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.leftovers import LeftoverService
from kohakuriver.runner.vps_service import VpsService
from kohakuriver.wire.messages import Order, OrderAnswer, encode
from kohakuriver.wire.trust.identity import LinkKeys


class Permission(Enum):
    """Who may call a route of the runner; each has a table of its own."""

    HOST = "host"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class RunnerServices:
    """What the routes hand on to."""

    node: str
    keys: Callable[[], LinkKeys | None]
    take_orders: Callable[[list[Order]], Awaitable[list[OrderAnswer]]]
    list_images: Callable[[], Awaitable[Any]]
    sync_environment: Callable[[str], Awaitable[None]]
    remove_environment: Callable[[str], Awaitable[None]]
    faults: Callable[[], list[str]]
    local_temp_dir: Path
    vps: VpsService
    leftovers: LeftoverService
    engine_of: Callable[[TaskId], Engine]
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
    """By path: what is served as a stream (`runner.api.streams`)."""


Handler = Callable[[RunnerServices, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """One route; there is no other way to make one."""

    method: str
    path: str
    handler: Handler
    permission: Permission = Permission.HOST


def json_answer(document: object, status: int = 200) -> Response:
    return Response(encode(document), status, media_type="application/json")
