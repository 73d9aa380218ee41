"""A token manages itself and what was made with it: it neither sees nor ends others, and leaves none."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kohakuriver.host.auth import AuthService
from kohakuriver.host.auth.admin_file import AdminFile, provide_admin_token
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.models.enums import Stream
from kohakuriver.private_files import write_private
from support.host.api import ApiHarness, auth_after_restart, auth_over, play
from support.host.control import control_over
from support.host.old_databases import make_old_database, token_row, user_row

LONG_SECONDS = 10
"""Far below any timeout that would end the stream for another reason."""


async def make(harness: ApiHarness, maker: str, name: str, role: str | None = None) -> dict[str, Any]:
    """A token made with the one called `maker`; it is called `name` from then on."""
    body = {"name": name, **({"role": role} if role else {})}
    answer = await harness.call(maker, "POST", "/api/auth/tokens/create", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    harness.tokens[name] = made["token"]
    return made


async def listed(harness: ApiHarness, who: str) -> list[str]:
    return [token["name"] for token in (await harness.call(who, "GET", "/api/auth/tokens")).json()]


async def ended(harness: ApiHarness, who: str) -> bool:
    return (await harness.call(who, "GET", "/api/auth/me")).status_code == 401


async def delete(harness: ApiHarness, who: str, token_id: str) -> int:
    return (await harness.call(who, "DELETE", f"/api/auth/tokens/{token_id}")).status_code


def test_a_viewers_token_ends_no_administrators(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        (root,) = (await harness.call("ada", "GET", "/api/auth/tokens")).json()
        other = await make(harness, "ada", "other")
        low = await make(harness, "ada", "low", "viewer")
        for victim in (root["id"], other["id"]):
            assert await delete(harness, "low", victim) == 404
        assert await listed(harness, "low") == ["low"], "nor does it see them"
        assert await listed(harness, "other") == ["other"]
        assert set(await listed(harness, "ada")) == {"test", "other", "low"}
        assert not await ended(harness, "ada")
        assert not await ended(harness, "other")
        assert await delete(harness, "low", low["id"]) == 200
        assert await ended(harness, "low")

    play(tmp_path, scenario)


def test_nothing_that_a_token_made_outlives_it(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        child = await make(harness, "ada", "child", "operator")
        await make(harness, "child", "grandchild")
        await make(harness, "grandchild", "great-grandchild", "viewer")
        await make(harness, "ada", "sibling")
        assert await listed(harness, "child") == ["child", "grandchild", "great-grandchild"]
        refused = await harness.call(
            "grandchild", "POST", "/api/auth/tokens/create", json={"name": "x", "role": "admin"}
        )
        assert refused.status_code == 403, "and none has more rights than the one that made it"
        assert await delete(harness, "ada", child["id"]) == 200
        for who in ("child", "grandchild", "great-grandchild"):
            assert await ended(harness, who)
        assert not await ended(harness, "sibling")
        again = await auth_after_restart(harness.room.store)
        for who in ("child", "grandchild", "great-grandchild"):
            assert again.actor_of(harness.tokens[who]) is None, "nor after a restart"
        assert again.actor_of(harness.tokens["sibling"]) is not None

    play(tmp_path, scenario)


def test_children_that_are_made_while_their_parent_is_deleted_end_as_well(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        child = await make(harness, "ada", "child")
        requests = [
            harness.call("child", "POST", "/api/auth/tokens/create", json={"name": f"n{number}"})
            for number in range(20)
        ]
        deleting = harness.call("ada", "DELETE", f"/api/auth/tokens/{child['id']}")
        *answers, deleted = await asyncio.gather(*requests[:10], *requests[10:], deleting)
        assert deleted.status_code == 200
        made = [answer.json()["token"] for answer in answers if answer.status_code == 200]
        again = await auth_after_restart(harness.room.store)
        for token in made:
            assert harness.auth.actor_of(token) is None
            assert again.actor_of(token) is None
        assert await listed(harness, "ada") == ["test"]

    play(tmp_path, scenario)


def test_what_a_child_had_open_ends_with_its_parent(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        harness.logs.streams[int(task), Stream.STDOUT] = b"first"
        parent = await make(harness, "otto", "parent")
        await make(harness, "parent", "child")
        async with harness.served() as address, httpx2.AsyncClient(timeout=LONG_SECONDS) as client:
            url = f"http://{address}/api/tasks/{task}/stdout?follow=true"
            async with client.stream("GET", url, headers=harness.credential("child")) as stream:
                pieces = stream.aiter_raw()
                assert await anext(pieces) == b"first"
                assert await delete(harness, "otto", parent["id"]) == 200
                with pytest.raises(httpx2.RemoteProtocolError):
                    await anext(pieces)

    play(tmp_path, scenario)


def test_tokens_of_an_old_database_work_and_the_hosts_own_can_end_them(tmp_path: Path) -> None:
    """They know no parent, so nothing manages them but themselves and the one of the host's machine."""
    path, file = tmp_path / "host.db", tmp_path / "admin_token.json"
    texts = {name: f"kr_{name}" for name in ("of the machine", "one", "two")}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    tokens = [token_row(name, "admin", hashed) for name, hashed in hashes.items()]
    make_old_database(path, "0004", [user_row("admin"), *tokens])
    write_private(file, json.dumps({"token": texts["of the machine"]}).encode())

    @contextlib.asynccontextmanager
    async def started() -> AsyncIterator[AuthService]:
        """As a host starts: the administrator's token first."""
        store = open_store(path)
        control = await control_over(store)
        auth = auth_over(control, store)
        await provide_admin_token(auth, file, AdminFile("http://127.0.0.1:8000", "SHA256:f"))
        running = asyncio.create_task(control.run())
        try:
            yield auth
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            store.close()

    async def scenario() -> None:
        async with started() as auth:
            own, one, two = (auth.actor_of(text) for text in texts.values())
            assert own is not None
            assert one is not None
            assert two is not None
            kept = json.loads(file.read_text())["token"]
            assert kept == texts["of the machine"], "it works, so it is kept"
            assert [token.id for token in auth.tokens_of(one)] == [one.token_id]
            assert len(auth.tokens_of(own)) == 3
            await auth.delete_token(own, "two")
            assert auth.actor_of(texts["two"]) is None
            assert auth.actor_of(texts["one"]) == one

    asyncio.run(scenario())
