"""The application itself, where exceptions that nobody expected end, and what a stop cuts short."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from kohakuriver.host.api.http.errors import FaultLog
from kohakuriver.host.api.http.open_requests import OpenRequests
from kohakuriver.host.api.http.shares import HELD_KEY


class HostApi(FastAPI):
    """FastAPI that hands no exception on to its server, which would log each of them once more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fault_log = FaultLog()
        self.open_requests = OpenRequests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Callable[[], None]] = []
        scope[HELD_KEY] = held
        try:
            await self.open_requests.answer(super().__call__, scope, receive, send)
        except Exception as error:  # noqa: BLE001 - boundary of one request
            # The fault of an ordinary request was answered and logged on the way here (`errors`).
            if scope["type"] == "websocket":
                self.fault_log.add(HTTPConnection(scope), error)
        finally:
            for give_back in held:
                give_back()
