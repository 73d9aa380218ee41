"""Private registries on the real engine: each way in which a node can be somebody there."""

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi import docker_config
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.runner.engines.contract.spec import ImageChoice
from kohakuriver.wire.registry_credentials import RegistryCredential
from support.cluster import wait_for
from support.image_records import ignore, node_images
from support.lab_registry import TOKEN, LabRegistry, lab_registry

pytest_plugins = ["support.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]

USER, PASSWORD = "ada", "river-password-4711"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(params=[False, True], ids=["basic", "bearer"])
def lab(request: pytest.FixtureRequest, environment: str) -> Iterator[LabRegistry]:
    with lab_registry() as registry:
        registry.put(environment, "1")
        registry.credentials = (USER, PASSWORD)
        registry.bearer = request.param
        yield registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home folder of the runner's user, with a folder on its PATH."""
    folder = tmp_path / "home"
    (folder / ".docker").mkdir(parents=True)
    (folder / "bin").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def _write(home: Path, **config: Any) -> None:
    (home / ".docker" / "config.json").write_text(json.dumps(config))


def _helper(home: Path, name: str, script: str) -> None:
    program = home / "bin" / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _answer(username: str, secret: str) -> str:
    """A helper that knows this, for the registry it is asked for on its standard input."""
    document = json.dumps({"Username": username, "Secret": secret})
    return f"""read -r server; [ "$1" = get ] && [ -n "$server" ] && echo '{document}'"""


def _choice(lab: LabRegistry, environment: str) -> ImageChoice:
    return ImageChoice(registry_image=f"{lab.address}/{environment}:1")


def _write_store(home: Path, name: str, script: str) -> None:
    _helper(home, name, script)
    _write(home, credsStore=name)


def _write_helper_beside_a_store(home: Path, lab: LabRegistry) -> None:
    _helper(home, "lab", _answer(USER, PASSWORD))
    _helper(home, "other", _answer("nobody", "wrong"))
    _write(home, credsStore="other", credHelpers={lab.address: "lab"})


WAYS: dict[str, Callable[[Path, LabRegistry], None]] = {
    "auth": lambda home, lab: _write(home, auths={lab.address: {"auth": BASIC}}),
    "auth under a url": lambda home, lab: _write(home, auths={f"https://{lab.address}/v1/": {"auth": BASIC}}),
    "user and password": lambda home, lab: _write(
        home, auths={lab.address: {"username": USER, "password": PASSWORD}}
    ),
    "store": lambda home, lab: _write_store(home, "lab", _answer(USER, PASSWORD)),
    "helper": _write_helper_beside_a_store,
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_runners_user_is_logged_in(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path, way: str
) -> None:
    images = node_images(api, tmp_path, 10)
    with pytest.raises(KohakuRiverError, match="docker login"):
        await images.ensure(_choice(lab, environment), ignore)
    WAYS[way](home, lab)
    ready = await images.ensure(_choice(lab, environment), ignore)
    assert ready.digest == lab.put(environment, "1")


async def test_an_identity_token_of_a_helper_is_taken(
    api: DockerApi, environment: str, home: Path, tmp_path: Path
) -> None:
    with lab_registry() as lab:
        lab.put(environment, "1")
        lab.credentials, lab.bearer, lab.identity_token = (USER, PASSWORD), True, "refresh-me"
        _helper(home, "lab", _answer("<token>", "refresh-me"))
        _write(home, credsStore="lab")
        assert (await node_images(api, tmp_path, 10).ensure(_choice(lab, environment), ignore)).id


async def test_the_cluster_comes_first_and_what_the_registry_refuses_is_passed_over(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path
) -> None:
    asked: list[str] = []

    async def ask_host(registry: str) -> RegistryCredential:
        asked.append(registry)
        return RegistryCredential(username=USER, password=PASSWORD if len(asked) > 1 else "old")

    images = node_images(api, tmp_path, 10, ask_host=ask_host)
    with pytest.raises(KohakuRiverError, match="did not take the cluster's credentials") as refused:
        await images.ensure(_choice(lab, environment), ignore)
    assert PASSWORD not in str(refused.value)
    _helper(home, "lab", f"touch {home}/asked; exit 1")
    _write(home, credsStore="lab")
    await images.ensure(_choice(lab, environment), ignore)
    assert asked == [lab.address] * 2
    assert not (home / "asked").exists()


async def _clusters(_registry: str) -> RegistryCredential:
    return RegistryCredential(username=USER, password=PASSWORD)


async def test_a_token_that_ends_amid_a_pull_is_asked_for_anew(
    api: DockerApi, environment: str, home: Path, tmp_path: Path
) -> None:
    with lab_registry() as lab:
        digest = lab.put(environment, "1")
        lab.credentials, lab.bearer, lab.tokens_end = (USER, PASSWORD), True, 1
        images = node_images(api, tmp_path, 10, ask_host=_clusters)
        assert (await images.ensure(_choice(lab, environment), ignore)).digest == digest


async def test_tokens_that_always_end_too_soon_are_named_after_a_few_tries(
    api: DockerApi, environment: str, home: Path, tmp_path: Path
) -> None:
    with lab_registry() as lab:
        lab.put(environment, "1")
        lab.credentials, lab.bearer, lab.tokens_end = (USER, PASSWORD), True, 1000
        said: list[str] = []
        with pytest.raises(KohakuRiverError) as refused:
            await node_images(api, tmp_path, 60, ask_host=_clusters).ensure(
                _choice(lab, environment), said.append
            )
        asked = len(lab.asked)
    assert "let the pull in with the cluster's credentials and refused it afterwards" in str(refused.value)
    assert "the tokens that it gives end too soon" in str(refused.value)
    assert "did not take" not in str(refused.value)
    assert "check its name" not in str(refused.value)
    assert asked <= 12
    assert not any("trying again" in sentence for sentence in said)


async def test_revoked_credentials_are_said_to_be_that_and_no_answer_shows_a_secret(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path
) -> None:
    images = node_images(api, tmp_path, 60, ask_host=_clusters)
    always = ImageChoice(registry_image=_choice(lab, environment).registry_image, pull=PullPolicy.ALWAYS)
    await images.ensure(always, ignore)
    lab.credentials, lab.quotes = (USER, "another"), True
    said: list[str] = []
    with pytest.raises(KohakuRiverError, match="may be wrong, have ended or been revoked") as refused:
        await images.ensure(always, said.append)
    assert "the lab does not take" in str(refused.value)
    for secret in (PASSWORD, BASIC, TOKEN):
        assert secret not in f"{refused.value} {said}"
    assert not any("trying again" in sentence for sentence in said)


async def test_a_host_that_cannot_be_asked_is_no_refusal(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path
) -> None:
    async def ask_host(_registry: str) -> RegistryCredential:
        raise Unavailable("the host does not answer")

    images = node_images(api, tmp_path, 10, ask_host=ask_host)
    with pytest.raises(Unavailable, match="the host does not answer"):
        await images.ensure(_choice(lab, environment), ignore)
    _write(home, auths={lab.address: {"auth": BASIC}})
    assert (await images.ensure(_choice(lab, environment), ignore)).id


BROKEN: dict[str, Callable[[Path, LabRegistry], object]] = {
    "no JSON": lambda home, _: (home / ".docker" / "config.json").write_text("{"),
    "of another form": lambda home, _: _write(home, auths=[1]),
    "a pipe": lambda home, _: os.mkfifo(home / ".docker" / "config.json"),
    "no such helper": lambda home, _: _write(home, credsStore="none-there"),
    "a helper elsewhere": lambda home, _: _write(home, credsStore="../../bin/lab"),
    "a helper that fails": lambda home, _: _write_store(home, "lab", "exit 1"),
    "a helper that says nonsense": lambda home, _: _write_store(home, "lab", "echo nonsense"),
    "a helper without end": lambda home, _: _write_store(home, "lab", "yes"),
    "auth that is none": lambda home, lab: _write(home, auths={lab.address: {"auth": "ü"}}),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_what_is_wrong_with_the_credentials_of_a_node_hangs_nothing(
    api: DockerApi, environment: str, home: Path, tmp_path: Path, fault: str
) -> None:
    with lab_registry() as public:
        BROKEN[fault](home, public)
        public.put(environment, "1")
        async with asyncio.timeout(30):
            assert (await node_images(api, tmp_path).ensure(_choice(public, environment), ignore)).id


TOLD = {
    "no JSON": r"config\.json could not be read: it is not as Docker writes it",
    "of another form": r"config\.json could not be read: it is not as Docker writes it",
    "a pipe": r"config\.json could not be read: it is not a regular file",
    "no such helper": "docker-credential-none-there is not on the PATH",
    "auth that is none": "is not as Docker writes it",
}


@pytest.mark.parametrize("fault", TOLD)
async def test_credentials_that_cannot_be_read_are_named_where_they_are_needed(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path, fault: str
) -> None:
    BROKEN[fault](home, lab)
    with pytest.raises(KohakuRiverError, match=TOLD[fault]) as refused:
        await node_images(api, tmp_path, 10).ensure(_choice(lab, environment), ignore)
    assert "there are no credentials" not in str(refused.value)


async def test_an_image_that_is_pulled_each_time_is_not_said_to_be_new_here(
    api: DockerApi, lab: LabRegistry, environment: str, home: Path, tmp_path: Path
) -> None:
    images = node_images(api, tmp_path, 10)
    _write(home, auths={lab.address: {"auth": BASIC}})
    await images.ensure(_choice(lab, environment), ignore)
    _write(home)
    always = ImageChoice(registry_image=f"{lab.address}/{environment}:1", pull=PullPolicy.ALWAYS)
    with pytest.raises(KohakuRiverError, match=r":1 cannot be pulled: .* \(there are no credentials for it"):
        await images.ensure(always, ignore)


async def test_a_helper_that_hangs_is_ended_with_what_it_started(
    api: DockerApi, environment: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_config, "_HELPER_SECONDS", 0.5)
    _helper(home, "lab", f"echo $$ >{home}/pid; sleep 600 & echo $! >>{home}/pid; wait")
    _write(home, credsStore="lab")
    with lab_registry() as public:
        public.put(environment, "1")
        await node_images(api, tmp_path).ensure(_choice(public, environment), ignore)
    pids = (home / "pid").read_text().split()
    assert len(pids) == 2
    wait_for(lambda: not any(_lives(pid) for pid in pids), "the helper and its child to be gone", 20)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
