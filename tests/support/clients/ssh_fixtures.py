"""The user of `support.clients.ssh_place`; `pytest_plugins = ["support.clients.ssh_fixtures"]`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients.command_line import CommandLine
from support.clients.ssh_place import Place, lab, resolve
from support.clients.stub_host import stub_host
from support.clients.vps_sshd import VpsSshd, vps_sshd
from support.host.gateway import HELEN, HELENS, GatewayHarness, gateway, vps


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VpsSshd]:
    with vps_sshd(tmp_path_factory.mktemp("session") / "sshd") as running:
        yield running


@pytest.fixture
def place(sshd: VpsSshd, tmp_path: Path) -> Iterator[Place]:
    harness = GatewayHarness()
    harness.add(vps(HELENS, "helen", "lab", (sshd.user_public_key,)), sshd.port)
    home = tmp_path / "helen's 100%h home"
    home.mkdir()
    with gateway(harness), stub_host() as host:
        told = {"host": "host.of.another.name", "port": harness.port, "host_key": harness.public_key}
        host.answer("GET", "/api/vps/gateway", told)
        host.script("GET", "/api/tasks/resolve", lambda request: resolve(request.query["ref"]))
        known = {"KOHAKURIVER_HOST_FINGERPRINT": host.identity.fingerprint}
        command = CommandLine(home, host.url, variables={"KOHAKURIVER_TOKEN": HELEN, **known})
        made = Place(host, harness, sshd, command)
        made.tell(lab(sshd))
        yield made
