"""Sandboxes of VPSs: each its own, with the VPS's host name, at an address that stays.

The address is asked for by its number, so that the engine gives it again when it starts the sandbox anew. One
that nobody asked for is chosen in the upper half of the network: the engine gives out the others from below.
"""

import ipaddress
import random
from collections.abc import Iterator

from kohakuriver.models.errors import EngineFault, KohakuRiverError, Unavailable
from kohakuriver.runner.engines.docker.sandboxes.body import SandboxRequest
from kohakuriver.runner.engines.docker.sandboxes.containers import (
    Sandbox,
    SandboxContainers,
    is_about_address,
)
from kohakuriver.runner.engines.docker.sandboxes.pool import SandboxPool

_TRIES = 6


class VpsSandboxes:
    def __init__(self, containers: SandboxContainers, subnet: str, pool: SandboxPool) -> None:
        """`pool`: it removes each container of which no sandbox came, and knows how long making takes."""
        self._containers = containers
        self._pool = pool
        self._subnet = ipaddress.IPv4Network(subnet)

    async def make(self, hostname: str, address: str | None) -> Sandbox:
        """Make one, with the address if that is free; raises Unavailable: no workload has a say in it."""
        try:
            return await self._pool.making_time.give(self._make(hostname, address))
        except KohakuRiverError as error:
            raise Unavailable(f"the workload's network cannot be made: {error}") from error
        except OSError as error:
            raise Unavailable(f"the workload's network cannot be noted down: {error.strerror}") from error

    async def _make(self, hostname: str, address: str | None) -> Sandbox:
        for wanted in wanted_addresses(self._subnet, address):
            try:
                return await self._containers.make(self._pool.doom, SandboxRequest(hostname, wanted))
            except EngineFault as error:
                if wanted is None or not is_about_address(error):
                    raise
        raise EngineFault("the engine gave it no address")


def wanted_addresses(subnet: ipaddress.IPv4Network, first: str | None) -> Iterator[str | None]:
    """What to ask for, in turn: the one given, some at random, and last whatever the engine chooses."""
    if first is not None and ipaddress.IPv4Address(first) in subnet:
        yield first
    half = subnet.num_addresses // 2
    if half > 2:
        for _ in range(_TRIES):
            yield str(subnet.network_address + half + random.randrange(half - 1))  # noqa: S311 - no secret
    yield None
