"""Leftovers, for the host: what there is, and their removal."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.runner.api.answers import json_answer
from kohakuriver.wire.leftovers import RemovalWish
from kohakuriver.wire.messages import decode

if TYPE_CHECKING:
    from kohakuriver.runner.api.routes import RunnerServices


async def tell_leftovers(services: "RunnerServices", _request: Request) -> Response:
    return json_answer(await services.leftovers.tell())


async def remove_leftovers(services: "RunnerServices", request: Request) -> Response:
    return json_answer(await services.leftovers.remove(decode(await request.body(), RemovalWish)))
