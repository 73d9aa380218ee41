"""The host about itself: health, readiness, metrics, its description, and the two pages."""

import asyncio
from pathlib import Path

import msgspec
import structlog
from fastapi import Request
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, answer
from kohakuriver.host.api.metrics import CONTENT_TYPE, render_metrics
from kohakuriver.host.api.permissions import AnyNameCall, AnyoneCall, ViewerCall
from kohakuriver.host.control import ControlFigures

log = structlog.get_logger()

_PAGES = Path(__file__).parent / "pages"
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Health(msgspec.Struct, frozen=True):
    status: str


class Fault(msgspec.Struct, frozen=True):
    part: str
    message: str


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status` is `ready` or `not ready`; `faults` names what does not work.

    `notices`: what is to be seen to although the host works. Anybody may ask, so no node is named.
    """

    status: str
    faults: list[Fault]
    notices: list[Fault] = []


async def healthz(call: AnyNameCall) -> Response:
    """Answer as long as the host serves requests."""
    return answer(Health("ok"))


async def readyz(call: AnyNameCall) -> Response:
    """Tell whether every part of the host works; 503 if one does not."""
    faults = [Fault(part, message) for part, message in call.parts.faults()]
    shown = Readiness("not ready" if faults else "ready", faults, closed_nodes(call.control.figures))
    return answer(shown, 503 if faults else 200)


def closed_nodes(figures: ControlFigures) -> list[Fault]:
    """Say how many nodes take no new work, and why, in one sentence; nothing where all do."""
    closed = figures.closed_nodes()
    if not closed:
        return []
    kinds = ", ".join(f"{count} {kind.value.replace('_', ' ')}" for kind, count in sorted(closed.items()))
    sentence = f"{closed.total()} of {figures.node_count()} nodes take no new work ({kinds})"
    return [Fault("nodes", f"{sentence}; `kohakuriver node list` says why")]


async def metrics(call: ViewerCall) -> Response:
    """Show figures for Prometheus."""
    try:
        store = await asyncio.to_thread(call.parts.store_size)
    except OSError as error:
        # The other figures are wanted most when the disk is ill.
        log.warning("store_size_not_known", reason=str(error))
        store = None
    return Response(render_metrics(call.parts, store), headers={"Content-Type": CONTENT_TYPE})


async def openapi(call: AnyoneCall, request: Request) -> Response:
    """Describe this interface."""
    return Response(request.app.state.description, media_type="application/json")


async def page(call: AnyoneCall) -> Response:
    """Show nodes and newest tasks in a browser; asks for a token."""
    return _file("overview.html", "text/html")


async def docs(call: AnyoneCall) -> Response:
    """List the operations of this interface in a browser."""
    return _file("docs.html", "text/html")


async def overview_script(call: AnyoneCall) -> Response:
    return _file("overview.js", "text/javascript")


async def docs_script(call: AnyoneCall) -> Response:
    return _file("docs.js", "text/javascript")


async def style(call: AnyoneCall) -> Response:
    return _file("style.css", "text/css")


def _file(name: str, media_type: str) -> Response:
    # A few kilobytes of the package's own, in the page cache: no thread is worth its while.
    content = (_PAGES / name).read_bytes()
    return Response(content, headers=_PAGE_HEADERS, media_type=f"{media_type}; charset=utf-8")


ENDPOINTS = (
    Endpoint("GET", "/healthz", healthz, Health),
    Endpoint("GET", "/readyz", readyz, Readiness, errors=(503,)),
    Endpoint("GET", "/metrics", metrics, media_type="text/plain"),
    Endpoint("GET", "/openapi.json", openapi, dict),
    Endpoint("GET", "/", page, media_type="text/html"),
    Endpoint("GET", "/docs", docs, media_type="text/html"),
    Endpoint("GET", "/assets/overview.js", overview_script, media_type="text/javascript"),
    Endpoint("GET", "/assets/docs.js", docs_script, media_type="text/javascript"),
    Endpoint("GET", "/assets/style.css", style, media_type="text/css"),
)
