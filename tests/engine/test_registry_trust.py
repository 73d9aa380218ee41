"""Registries with TLS on the real engine: one whose certificate it does not trust says what to do, once."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.runner.engines.contract.spec import ImageChoice
from support.image_records import node_images
from support.lab_certificates import LabAuthority
from support.lab_registry import LabRegistry, lab_registry
from support.lacking import missing

pytest_plugins = ["support.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def address(api: DockerApi) -> str:
    """One of this machine at which an engine wants a certificate, as it does not on loopback."""
    bridge = await api.json("GET", "networks/bridge")
    configured = [each["Gateway"] for each in bridge["IPAM"]["Config"] if "Gateway" in each]
    if not configured:
        missing("the engine has no bridge of its own")
    try:
        with socket.create_server((str(configured[0]), 0)):
            return str(configured[0])
    except OSError as error:
        missing(f"the engine's bridge is not of this machine: {error}")


@contextlib.contextmanager
def serving(environment: str, address: str, certificate: ssl.SSLContext | None) -> Iterator[LabRegistry]:
    with lab_registry(address, certificate) as registry:
        registry.put(environment, "1")
        yield registry


@contextlib.contextmanager
def trusted(registry: LabRegistry, pem: bytes) -> Iterator[None]:
    """As the sentence says; an engine looks there with each pull."""
    folder = Path("/etc/docker/certs.d") / registry.address
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_bytes(pem)
        yield
    finally:
        (folder / "ca.crt").unlink()
        os.removedirs(folder)


async def refusal(api: DockerApi, folder: Path, choice: ImageChoice) -> str:
    said: list[str] = []
    with pytest.raises(KohakuRiverError) as refused:
        await node_images(api, folder, 10).ensure(choice, said.append)
    assert not any("trying again" in sentence for sentence in said)
    assert "check its name" not in str(refused.value), "it was found"
    return str(refused.value)


async def test_an_authority_that_nobody_knows_is_named_with_what_to_do_and_that_helps(
    api: DockerApi, environment: str, address: str, tmp_path: Path
) -> None:
    authority = LabAuthority.make("the lab's authority")
    with serving(environment, address, authority.server(tmp_path, address)) as registry:
        choice = ImageChoice(registry_image=f"{registry.address}/{environment}:1")
        told = await refusal(api, tmp_path, choice)
        assert "x509: certificate signed by unknown authority" in told
        assert f"into /etc/docker/certs.d/{registry.address}/ca.crt on the machine that pulls" in told
        with trusted(registry, authority.pem):
            ready = await node_images(api, tmp_path, 10).ensure(choice, lambda _: None)
        assert ready.digest == registry.put(environment, "1")


@dataclass(frozen=True)
class Wrong:
    """`named`: the address in the certificate, if that is not the registry's."""

    named: str | None
    life: timedelta
    told: str


WRONG = (
    Wrong(None, timedelta(days=-1), "have the registry's certificate renewed, or the clock"),
    Wrong("192.0.2.77", timedelta(days=1), "the registry's certificate is for another name"),
)


@pytest.mark.parametrize("wrong", WRONG, ids=["ended", "another's"])
async def test_a_certificate_that_has_ended_or_is_anothers_is_said_to_be_that(
    api: DockerApi, environment: str, address: str, tmp_path: Path, wrong: Wrong
) -> None:
    authority = LabAuthority.make("the lab's authority")
    server = authority.server(tmp_path, wrong.named or address, wrong.life)
    with serving(environment, address, server) as registry, trusted(registry, authority.pem):
        choice = ImageChoice(registry_image=f"{registry.address}/{environment}:1")
        assert wrong.told in await refusal(api, tmp_path, choice)


async def test_a_registry_without_tls_is_said_to_be_that(
    api: DockerApi, environment: str, address: str, tmp_path: Path
) -> None:
    with serving(environment, address, None) as registry:
        told = await refusal(api, tmp_path, ImageChoice(registry_image=f"{registry.address}/{environment}:1"))
        assert f"add {registry.address} to insecure-registries" in told
