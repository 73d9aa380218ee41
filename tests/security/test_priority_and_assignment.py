"""Attacks on the order of the queue, and on VPSs by way of names that nobody has yet."""

import sqlite3
from pathlib import Path

import pytest

from kohakuriver.host.auth import Actor
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.models.enums import Role
from kohakuriver.models.ids import TaskId
from support.host.api import ApiHarness, play
from support.host.old_databases import make_old_database, user_row


def test_a_user_passes_nobody_by_a_priority_of_his_own_choice(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for priority in (1, 7, 1000):
            body = {"command": "true", "priority": priority}
            answer = await harness.call("ursula", "POST", "/api/submit", json=body)
            assert answer.status_code == 403, answer.text
            assert "operator" in answer.json()["detail"]
        listed = (await harness.call("otto", "GET", "/api/tasks")).json()
        assert listed == []

    play(tmp_path, scenario)


def test_a_user_may_stand_back_and_an_operator_may_go_first(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for who, priority in (("ursula", 0), ("ursula", -1000), ("otto", 1000), ("ada", 1)):
            task = await harness.submit(who, priority=priority)
            shown = (await harness.call("vera", "GET", f"/api/status/{task}")).json()
            assert shown["priority"] == priority

    play(tmp_path, scenario)


def test_a_token_of_an_operator_with_a_users_role_goes_first_no_more_than_a_user(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        small = await harness.auth.create_token(Actor("otto", Role.OPERATOR), "small", Role.USER)
        headers = {"Authorization": f"Bearer {small.text}"}
        body = {"command": "true", "priority": 5}
        answer = await harness.call(None, "POST", "/api/submit", json=body, headers=headers)
        assert answer.status_code == 403, answer.text

    play(tmp_path, scenario)


async def _new_vps(harness: ApiHarness) -> str:
    answer = await harness.call("otto", "POST", "/api/vps/create", json={"name": "lab"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


def test_a_vps_is_not_assigned_to_a_name_that_nobody_has(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        path = f"/api/vps/{await _new_vps(harness)}/assignments"
        for name in ("mallory", "Ursula", "ursula ", "anonymous"):
            answer = await harness.call("otto", "POST", path, json={"username": name})
            assert answer.status_code == 404, (name, answer.text)
            assert "no user" in answer.json()["detail"]
        assert (await harness.call("otto", "POST", path, json={"username": "ursula"})).status_code == 200
        shown = (await harness.call("otto", "GET", path)).json()["assignments"]
        assert [row["username"] for row in shown] == ["ursula"]

    play(tmp_path, scenario)


def test_the_store_itself_takes_no_assignment_to_nobody(tmp_path: Path) -> None:
    """Whichever way leads there: two requests at once, or a part that forgets to ask."""
    open_store(tmp_path / "host.db").close()
    with sqlite3.connect(tmp_path / "host.db") as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO vps_assignments VALUES (1, 'mallory', 'otto', 0)")


def test_a_new_user_does_not_inherit_what_was_assigned_to_one_who_is_gone(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        vps = int(await _new_vps(harness))
        path = f"/api/vps/{vps}/assignments"
        assert (await harness.call("otto", "POST", path, json={"username": "ulf"})).status_code == 200
        control = harness.room.control
        await harness.room.store.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM users WHERE name='ulf'")
        )
        assert await control.loop.reload()
        await harness.room.add_user("ulf", Role.USER)
        assert control.accounts.known.assigned(TaskId(vps)) == []

    play(tmp_path, scenario)


def test_what_an_older_host_assigned_to_nobody_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    assigned = [
        ("vps_assignments", {"task_id": 1, "user_name": name, "assigned_by": "otto", "assigned_at": 0})
        for name in ("ursula", "mallory")
    ]
    make_old_database(path, "0003", [user_row("ursula", "user"), *assigned])
    open_store(path).close()
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT user_name FROM vps_assignments").fetchall()
    assert rows == [("ursula",)]
