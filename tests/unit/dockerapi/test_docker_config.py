"""Credentials of a user as the engine's command line keeps them: each form, and which of them comes first."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.docker_config import config_path, own_credential, server_of
from kohakuriver.host.environments.registry_logins import registry_logins
from kohakuriver.runner.images.registry_logins import RegistryLogins
from kohakuriver.wire.registry_credentials import RegistryCredential

pytestmark = pytest.mark.anyio
BASIC = base64.b64encode(b"ada:secret").decode()
PERSON = {"username": "ada", "password": "secret"}
LAB = "lab.example:5000"
HUB = server_of("docker.io")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with the helpers `store`, `lab` and `token`, and a home."""
    for name, user in (("store", "of-store"), ("lab", "of-lab"), ("token", "<token>")):
        program = tmp_path / f"docker-credential-{name}"
        answer = json.dumps({"Username": user, "Secret": "secret"})
        script = f"read -r server; echo \"$server\" >>'{tmp_path}/asked'; echo '{answer}'"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path


async def credential(folder: Path, registry: str, **config: Any) -> dict[str, str] | None:
    """What an engine would be told for the registry, with this in the folder's config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    found = await own_credential(registry, folder / "config.json")
    told: dict[str, str] | None = (
        None if found is None else json.loads(base64.urlsafe_b64decode(found.header))
    )
    return told


FORMS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "auth": (LAB, {"auths": {LAB: {"auth": BASIC}}}, PERSON),
    "auth under a url": (LAB, {"auths": {f"https://{LAB}/v2/": {"auth": BASIC}}}, PERSON),
    "auth of the default registry": ("docker.io", {"auths": {HUB: {"auth": BASIC}}}, PERSON),
    "user and password": (LAB, {"auths": {LAB: PERSON}}, PERSON),
    "identity token": (LAB, {"auths": {LAB: {"identitytoken": "t"}}}, {"identitytoken": "t"}),
    "registry token": (LAB, {"auths": {LAB: {"registrytoken": "t"}}}, {"registrytoken": "t"}),
    "store": (LAB, {"credsStore": "store"}, {"username": "of-store", "password": "secret"}),
    "helper": (LAB, {"credHelpers": {LAB: "lab"}}, {"username": "of-lab", "password": "secret"}),
    "token of a store": (LAB, {"credsStore": "token"}, {"identitytoken": "secret"}),
}


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_gives_what_it_holds(home: Path, form: str) -> None:
    registry, config, wanted = FORMS[form]
    server = HUB if registry == "docker.io" else registry
    assert await credential(home, registry, **config) == wanted | {"serveraddress": server}
    if "auths" in config:
        assert await credential(home, "other.example", **config) is None


async def test_a_helper_comes_before_the_store_and_that_before_the_file(home: Path) -> None:
    everything: dict[str, Any] = {
        "auths": {LAB: PERSON, "third.example": PERSON},
        "credsStore": "store",
        "credHelpers": {LAB: "lab"},
    }
    lab, other = await credential(home, LAB, **everything), await credential(home, "o.example", **everything)
    assert (lab and lab["username"], other and other["username"]) == ("of-lab", "of-store")
    everything["credsStore"] = "none-there"
    third = await credential(home, "third.example", **everything)
    assert third is not None
    assert third["username"] == "ada"


async def test_a_helper_is_told_the_name_by_which_engines_know_the_registry(home: Path) -> None:
    for registry in (LAB, "docker.io"):
        await credential(home, registry, credsStore="store")
    assert (home / "asked").read_text().split() == [LAB, HUB]


async def test_the_file_lies_at_home_or_where_docker_config_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await credential(home / ".docker", LAB, auths={LAB: PERSON})
    assert await own_credential(LAB) is not None
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    assert config_path() == home / "elsewhere" / "config.json"
    assert await own_credential(LAB) is None
    assert await credential(home / "elsewhere", LAB, auths={LAB: PERSON})
    assert await own_credential(LAB) is not None


class Kept:
    """The cluster's own, as the host keeps them and as a runner asks for them."""

    def of(self, registry: str) -> RegistryCredential | None:
        return RegistryCredential(username="cluster", password="secret") if registry == LAB else None

    async def ask(self, registry: str) -> RegistryCredential:
        return self.of(registry) or RegistryCredential()


@pytest.mark.parametrize("side", ["host", "runner"])
async def test_the_clusters_own_comes_first_and_then_that_of_the_daemons_user(home: Path, side: str) -> None:
    await credential(home / ".docker", LAB, auths={LAB: PERSON, "other.example": PERSON})
    logins = {
        "host": lambda registry: registry_logins(Kept(), registry),
        "runner": RegistryLogins(Kept().ask).of,
    }[side]
    told = {
        registry: [found.origin for look in logins(registry) if (found := await look()) is not None]
        for registry in (LAB, "other.example", "third.example")
    }
    own = f"the credentials of {home / '.docker' / 'config.json'}"
    assert told == {LAB: ["the cluster's credentials", own], "other.example": [own], "third.example": []}
