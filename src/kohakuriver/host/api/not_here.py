"""Addresses of parts that this version has not: asked whether they are there, they say no.

Clients that know them go on with that answer; what would use such a part is refused with the reason.
"""

from typing import Annotated

import msgspec
from fastapi import Query
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, answer
from kohakuriver.host.api.path_fields import HostnameText
from kohakuriver.host.api.permissions import AdminCall, OperatorCall, ViewerCall
from kohakuriver.models.errors import SwitchedOff

Text = Annotated[str | None, Query(max_length=4096)]
Number = Annotated[int | None, Query(ge=0, le=1 << 31)]


class OverlayStatus(msgspec.Struct, frozen=True):
    enabled: bool


async def overlay_status(call: ViewerCall) -> Response:
    """Tell whether workloads of different nodes share a network."""
    return answer(OverlayStatus(False))


async def overlay_release(call: AdminCall, runner: HostnameText) -> Response:
    """Take a node's network back."""
    raise _no_overlay()


async def overlay_cleanup(call: AdminCall) -> Response:
    """Take back the networks of nodes that are gone."""
    raise _no_overlay()


async def addresses_free(call: ViewerCall, runner: Text = None, limit: Number = None) -> Response:
    """List addresses that can be reserved."""
    raise _no_overlay()


async def addresses_of_node(call: ViewerCall, runner: HostnameText) -> Response:
    """Tell about the addresses of one node."""
    raise _no_overlay()


async def reserve_address(
    call: OperatorCall, runner: Text = None, ip: Text = None, ttl: Number = None
) -> Response:
    """Reserve an address for a workload to come."""
    raise _no_overlay()


async def release_address(call: OperatorCall, token: Text = None) -> Response:
    """Give a reserved address back."""
    raise _no_overlay()


async def list_reservations(call: ViewerCall, runner: Text = None) -> Response:
    """List the addresses that are reserved."""
    raise _no_overlay()


async def check_reservation(call: OperatorCall, token: Text = None, runner: Text = None) -> Response:
    """Tell whether a reservation holds."""
    raise _no_overlay()


async def address_figures(call: ViewerCall) -> Response:
    """Count addresses."""
    raise _no_overlay()


async def vm_images(call: ViewerCall, hostname: HostnameText) -> Response:
    """List the images of virtual machines on a node, of which there are none."""
    empty: list[str] = []
    return answer(empty)


async def vm_instances(call: ViewerCall) -> Response:
    """List the disks of virtual machines by their nodes, of which there are none."""
    empty: dict[str, list[str]] = {}
    return answer(empty)


def _no_overlay() -> SwitchedOff:
    return SwitchedOff("the overlay network is off on this cluster, so there are no addresses to work with")


_OFF = (400,)
_OVERLAY = "/api/overlay"
ENDPOINTS = (
    Endpoint("GET", f"{_OVERLAY}/status", overlay_status, OverlayStatus),
    Endpoint("POST", f"{_OVERLAY}/release/{{runner}}", overlay_release, errors=_OFF, audit="overlay.release"),
    Endpoint("POST", f"{_OVERLAY}/cleanup", overlay_cleanup, errors=_OFF, audit="overlay.cleanup"),
    Endpoint("GET", f"{_OVERLAY}/ip/available", addresses_free, errors=_OFF),
    Endpoint("GET", f"{_OVERLAY}/ip/info/{{runner}}", addresses_of_node, errors=_OFF),
    Endpoint("POST", f"{_OVERLAY}/ip/reserve", reserve_address, errors=_OFF, audit="overlay.reserve"),
    Endpoint("POST", f"{_OVERLAY}/ip/release", release_address, errors=_OFF, audit="overlay.give_back"),
    Endpoint("GET", f"{_OVERLAY}/ip/reservations", list_reservations, errors=_OFF),
    Endpoint("POST", f"{_OVERLAY}/ip/validate", check_reservation, errors=_OFF, audit="overlay.validate"),
    Endpoint("GET", f"{_OVERLAY}/ip/stats", address_figures, errors=_OFF),
    Endpoint("GET", "/api/vm/images/{hostname}", vm_images, list[str]),
    Endpoint("GET", "/api/vps/vm-instances", vm_instances, dict[str, list[str]]),
)
