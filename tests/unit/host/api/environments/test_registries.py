"""Credentials for registries over HTTP: by whom they are given, and to which node which of them goes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.registries.credentials import RegistryCredentials
from kohakuriver.wire.messages import decode
from kohakuriver.wire.registry_credentials import RegistryCredential
from kohakuriver.wire.trust.identity import Identity
from support.host.api import ApiHarness, play
from support.host.signing_node import SigningNode

PASSWORD = "river-password"
LOGIN = {"registry": "lab.internal:5000", "username": "ada", "password": PASSWORD}
PATH = "/api/docker/registries"


def test_only_operators_give_list_and_take_back_and_nobody_sees_a_password(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for method, more in (
            ("GET", {}),
            ("PUT", {"json": LOGIN}),
            ("DELETE", {"params": {"registry": "a"}}),
        ):
            assert (await harness.call("ursula", method, PATH, **more)).status_code == 403
        assert (await harness.call("otto", "PUT", PATH, json=LOGIN)).status_code == 200
        answer = await harness.call("otto", "GET", PATH)
        assert [row.keys() for row in answer.json()] == [{"registry", "username", "kept_by", "kept_at"}]
        assert answer.json()[0]["kept_by"] == "otto"
        assert PASSWORD not in answer.text
        gone = await harness.call("otto", "DELETE", PATH, params={"registry": "lab.internal:5000"})
        assert gone.status_code == 200
        gone = await harness.call("otto", "DELETE", PATH, params={"registry": "lab.internal:5000"})
        assert gone.status_code == 404

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"registry": "https://lab.internal"}, "registry"),
        ({"registry": "lab"}, "registry"),
        ({"registry": "lab.internal/path"}, "registry"),
        ({"registry": ""}, "registry"),
        ({"username": "a:b"}, "username"),
        ({"username": ""}, "username"),
        ({"password": ""}, "password"),
        ({"password": f"{PASSWORD}\0"}, "password"),
    ],
)
def test_what_is_no_login_is_refused_without_its_password(
    tmp_path: Path, changed: dict[str, Any], field: str
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("otto", "PUT", PATH, json={**LOGIN, **changed})
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert PASSWORD not in answer.text

    play(tmp_path, scenario)


def test_other_names_of_the_default_registry_are_one(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for name in ("docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"):
            body = {**LOGIN, "registry": name}
            assert (await harness.call("otto", "PUT", PATH, json=body)).status_code == 200
        assert [row["registry"] for row in (await harness.call("otto", "GET", PATH)).json()] == ["docker.io"]

    play(tmp_path, scenario)


def test_a_node_gets_a_credential_for_what_starts_on_it_and_no_other(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.call("otto", "PUT", PATH, json=LOGIN)
        nodes = {name: await SigningNode(harness, name).enrol() for name in ("n1", "n2")}
        for name in nodes:
            await harness.room.register(name)
            await harness.room.beat(name)

        async def asked_by(node: str, registry: str = "lab.internal:5000") -> RegistryCredential:
            answer = await nodes[node].send("POST", "/api/registry-credential", {"registry": registry})
            assert answer.status_code == 200
            return decode(answer.content, RegistryCredential)

        nothing = RegistryCredential()
        assert await asked_by("n1") == nothing
        await harness.submit("otto", registry_image="lab.internal:5000/x:1", targets=["n1"])
        await harness.submit("otto", registry_image="other.internal/x:1", targets=["n2"])
        assert await asked_by("n1") == RegistryCredential(username="ada", password=PASSWORD)
        assert PASSWORD not in repr(await asked_by("n1"))
        assert await asked_by("n2") == await asked_by("n1", "other.internal") == nothing

    play(tmp_path, scenario)


def test_what_was_sealed_by_another_key_or_for_another_registry_opens_nothing(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        identity = Identity.generate()
        kept = await RegistryCredentials.open(harness.room.store, identity)
        await kept.keep("a.internal", "ada", PASSWORD, "otto")
        again = await RegistryCredentials.open(harness.room.store, identity)
        assert again.of("a.internal") == RegistryCredential(username="ada", password=PASSWORD)
        assert PASSWORD.encode() not in kept.all()[0].sealed
        other = await RegistryCredentials.open(harness.room.store, Identity.generate())
        assert other.of("a.internal") is None
        await kept.keep("b.internal", "eve", "another", "otto")
        moved = replace(kept.all()[0], registry="b.internal")
        assert RegistryCredentials(harness.room.store, identity, [moved]).of("b.internal") is None

    play(tmp_path, scenario)
