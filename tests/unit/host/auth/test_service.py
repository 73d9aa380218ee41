"""Users and tokens: who a credential stands for, and that nobody gets more than they have."""

import asyncio
import contextlib
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kohakuriver.host.auth import Action, Actor, AuthService, may, warn_if_open
from kohakuriver.host.auth.admin_file import AdminFile, provide_admin_token
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.models.enums import Role
from kohakuriver.models.errors import Unauthenticated
from support.host.api import ApiHarness, auth_after_restart, auth_over, play
from support.host.control import control_room


def actor_of(auth: AuthService, token: str) -> Actor:
    return auth.authenticate(f"Bearer {token}")


OTTO, URSULA, VERA = (
    Actor("otto", Role.OPERATOR),
    Actor("ursula", Role.USER),
    Actor("vera", Role.VIEWER),
)


@pytest.mark.parametrize(
    ("actor", "action", "owner", "expected"),
    [
        (OTTO, Action.CONTROL_TASK, "ursula", True),
        (URSULA, Action.CONTROL_TASK, "ursula", True),
        (URSULA, Action.CONTROL_TASK, "ulf", False),
        (URSULA, Action.CONTROL_TASK, None, False),
        (replace(URSULA, role=Role.VIEWER), Action.CONTROL_TASK, "ursula", False),
        (VERA, Action.READ_TASK, "ursula", True),
        (Actor("x", Role.ANONY), Action.READ_TASK, "x", False),
        (VERA, Action.READ_ENVIRONMENT_VALUES, "ursula", False),
        (VERA, Action.READ_ENVIRONMENT_VALUES, "vera", True),
        (OTTO, Action.READ_ENVIRONMENT_VALUES, "ursula", True),
        (URSULA, Action.SKIP_APPROVAL, "ursula", False),
        (URSULA, Action.GRANT_HOST_ACCESS, "ursula", False),
        (OTTO, Action.GRANT_HOST_ACCESS, None, True),
    ],
)
def test_who_may_what(actor: Actor, action: Action, owner: str | None, expected: bool) -> None:
    assert may(actor, action, owner) is expected


def test_a_credential_that_is_not_exactly_a_valid_token_is_refused(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        token = harness.tokens["ursula"]
        assert harness.auth.authenticate(f"Bearer {token}") == URSULA
        assert harness.auth.authenticate(f"bearer {token}") == URSULA
        changed = (token[:-1], token + "x", token.swapcase(), "", "kr_", "x" * 1000, "\udcff")
        for header in (None, "", token, f"Basic {token}", *(f"Bearer {text}" for text in changed)):
            with pytest.raises(Unauthenticated):
                harness.auth.authenticate(header)

    play(tmp_path, scenario)


def test_the_store_holds_no_token_in_clear(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        made = (await harness.call("otto", "POST", "/api/auth/tokens/create", json={"name": "ci"})).json()
        assert made["token"] not in (await harness.call("otto", "GET", "/api/auth/tokens")).text
        assert repr(await harness.auth.create_token(OTTO, "x")).count("kr_") == 0
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("host.db*"))
        assert made["token"].encode() not in kept
        assert made["token_id"].encode() in kept

    play(tmp_path, scenario)


def test_when_a_token_was_used_is_known_after_a_restart(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        running = asyncio.create_task(harness.auth.uses.run())
        made = (await harness.call("otto", "POST", "/api/auth/tokens/create", json={"name": "ci"})).json()
        before = datetime.now(UTC)
        await harness.call(
            "otto", "GET", "/api/auth/me", headers={"Authorization": f"Bearer {made['token']}"}
        )
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        again = await auth_after_restart(harness.room.store)
        own = Actor("otto", Role.OPERATOR, made["token_id"])
        known = {token.id: again.uses.known(token).last_used for token in again.tokens_of(own)}
        last = known[made["token_id"]]
        assert last is not None
        assert last >= before

    play(tmp_path, scenario)


def test_a_token_carries_at_most_its_makers_role_and_dies_at_once(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async def create(who: str, **fields: str) -> tuple[int, dict[str, str]]:
            answer = await harness.call(who, "POST", "/api/auth/tokens/create", json={"name": "t", **fields})
            return answer.status_code, answer.json()

        assert (await create("ursula", role="admin"))[0] == 403
        assert (await create("ursula", role="root"))[0] == 422
        assert (await create("ursula", name="a\nb"))[0] == 422
        status, made = await create("ursula", role="viewer")
        assert status == 200
        harness.tokens["low"] = made["token"]
        assert (await harness.call("low", "GET", "/api/auth/me")).json()["role"] == "viewer"
        assert (await harness.call("low", "POST", "/api/submit", json={"command": "x"})).status_code == 403
        assert (await create("low", role="user"))[0] == 403
        path = f"/api/auth/tokens/{made['id']}"
        assert (await harness.call("ada", "DELETE", path)).status_code == 404
        assert (await harness.call("ursula", "DELETE", path)).status_code == 200
        assert (await harness.call("low", "GET", "/api/auth/me")).status_code == 401

    play(tmp_path, scenario)


def test_tokens_outlive_a_restart_and_die_with_their_user(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        header = f"Bearer {harness.tokens['otto']}"
        again = await auth_after_restart(harness.room.store)
        assert again.authenticate(header) == OTTO
        for role, active in ((Role.VIEWER, True), (Role.OPERATOR, False)):
            await harness.room.add_user("otto", role, active=active)
            for auth in (harness.auth, await auth_after_restart(harness.room.store)):
                if active:
                    assert auth.authenticate(header).role is Role.VIEWER
                else:
                    with pytest.raises(Unauthenticated):
                        auth.authenticate(header)

    play(tmp_path, scenario)


def test_the_administrators_file_is_private_and_kept_while_its_token_works(tmp_path: Path) -> None:
    path = tmp_path / "home" / "admin_token.json"

    async def scenario() -> None:
        store = open_store(tmp_path / "host.db")
        auth = await auth_after_restart(store)
        await provide_admin_token(auth, path, AdminFile("http://127.0.0.1:8000", "SHA256:f"))
        first = json.loads(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert auth.authenticate(f"Bearer {first['token']}") == Actor("admin", Role.ADMIN)
        auth = await auth_after_restart(store)
        moved = AdminFile("http://127.0.0.1:9000", "SHA256:f")
        await provide_admin_token(auth, path, moved)
        wanted = {"url": "http://127.0.0.1:9000", "token": first["token"], "fingerprint": "SHA256:f"}
        assert json.loads(path.read_text()) == wanted
        # As an older version wrote it: without the host's key.
        path.write_text(json.dumps({"url": "http://127.0.0.1:9000", "token": first["token"]}))
        await provide_admin_token(auth, path, moved)
        assert json.loads(path.read_text()) == wanted
        assert len(auth.tokens_of(actor_of(auth, first["token"]))) == 1
        store.close()
        async with control_room(tmp_path) as room:
            auth = auth_over(room.control, room.store)
            admin = actor_of(auth, first["token"])
            await auth.delete_token(admin, admin.token_id)
        store = open_store(tmp_path / "host.db")
        for spoil in (lambda: None, lambda: path.chmod(0o644), lambda: path.write_text("{broken")):
            spoil()
            before = path.read_text()
            await provide_admin_token(await auth_after_restart(store), path, moved)
            assert path.read_text() != before
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        store.close()

    asyncio.run(scenario())


def test_without_authentication_everybody_is_an_administrator(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        assert (await harness.call(None, "GET", "/api/auth/status")).json() == {
            "auth_enabled": False,
            "session_expire_hours": 720,
        }
        me = (await harness.call(None, "GET", "/api/auth/me")).json()
        assert (me["name"], me["role"]) == ("anonymous", "admin")
        assert (await harness.call(None, "POST", "/api/submit", json={"command": "x"})).status_code == 202
        answer = await harness.call(None, "POST", "/api/auth/tokens/create", json={"name": "x"})
        assert answer.status_code == 409

    play(tmp_path, scenario, auth_enabled=False)


@pytest.mark.parametrize(
    ("enabled", "address", "expected"),
    [
        (True, "0.0.0.0", False),
        (False, "0.0.0.0", True),
        (False, "10.0.0.1", True),
        (False, "::", True),
        (False, "127.0.0.1", False),
        (False, "::1", False),
        (False, "localhost", False),
    ],
)
def test_a_host_open_to_others_without_authentication_warns(
    enabled: bool, address: str, expected: bool
) -> None:
    assert warn_if_open(enabled, address) is expected
