"""The gateway with the users and VPS of its tests; `pytest_plugins = ["support.host.gateway_fixtures"]`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients.vps_sshd import make_key, public_key_of
from support.host.gateway import HELENS, IVANS, GatewayHarness, gateway, vps


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    return {name: make_key(tmp_path / name) for name in ("helen", "ivan", "stranger")}


@pytest.fixture
def harness(keys: dict[str, Path], tmp_path: Path) -> Iterator[GatewayHarness]:
    """Helen's VPS and Ivan's, each with its owner's key."""
    made = GatewayHarness()
    made.add(vps(HELENS, "helen", "lab", (public_key_of(keys["helen"]),)))
    made.add(vps(IVANS, "ivan", "attic", (public_key_of(keys["ivan"]),)))
    with gateway(made):
        yield made
