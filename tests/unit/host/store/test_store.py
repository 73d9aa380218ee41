"""The store: migrations lead to the tables that the code expects, and an old or foreign file is handled."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from kohakuriver.host.store import queries
from kohakuriver.host.store.migrate import NEWEST, SCRIPTS
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.tables import metadata
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from support.host.old_databases import make_old_database, task_row, token_row, user_row


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(config).get_current_head() == NEWEST


def test_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    open_store(tmp_path / "host.db").close()
    with create_engine(f"sqlite:///{tmp_path}/host.db").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_store(tmp_path / "deep" / "host.db").close()
    assert (tmp_path / "deep" / "host.db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "deep").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    path.write_text("this is not a database, but somebody's only copy of something\n" * 50)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "host.db").close()
    with sqlite3.connect(tmp_path / "host.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Unavailable, match="newer"):
        open_store(tmp_path / "host.db")


def test_a_database_of_the_first_schema_opens_and_keeps_its_tasks_and_nodes(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    node = {"hostname": "n1", "public_key": "key", "approved_by": "ada", "approved_at": 0, "faults": b"[]"}
    running = task_row(7, state="running", attempt=1, revision=1, assigned_node="n1")
    make_old_database(path, "0001", [running, ("nodes", node)])
    store = open_store(path)
    try:
        [task] = asyncio.run(store.read(queries.live_tasks))
        [listed] = asyncio.run(store.read(queries.all_nodes))
    finally:
        store.close()
    assert (task.id, task.state, task.spec.command) == (TaskId(7), TaskState.RUNNING, "sleep")
    assert (task.spec.retries, task.retries_used, task.move_requested, task.previous_node) == (
        0,
        0,
        False,
        None,
    )
    assert (listed.hostname, listed.draining) == ("n1", False)


def test_users_and_tokens_of_before_are_numbered_as_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    users = [user_row("zoe", created_at=10), user_row("ada", created_at=20)]
    tokens = [token_row(name, "ada", created_at=made) for name, made in (("bb", 20), ("aa", 30), ("cc", 10))]
    make_old_database(path, "0001", [*users, *tokens])
    store = open_store(path)
    try:
        numbered_users = asyncio.run(store.read(queries.all_users))
        numbered_tokens = asyncio.run(store.read(queries.all_tokens))
    finally:
        store.close()
    assert {user.name: user.number for user in numbered_users} == {"zoe": 1, "ada": 2}
    assert {token.id: token.number for token in numbered_tokens} == {"cc": 1, "bb": 2, "aa": 3}
    assert {token.last_used for token in numbered_tokens} == {None}
