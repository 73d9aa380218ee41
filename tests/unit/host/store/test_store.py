"""The store: migrations lead to the tables that the code expects, and an old or foreign file is handled."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from kohakuriver.host.store import queries
from kohakuriver.host.store.migrate import NEWEST, SCRIPTS
from kohakuriver.host.store.store import open_store
from kohakuriver.host.store.tables import metadata
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId


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
    _make_first_schema(path)
    store = open_store(path)
    try:
        [task] = asyncio.run(store.read(queries.live_tasks))
        [node] = asyncio.run(store.read(queries.all_nodes))
    finally:
        store.close()
    assert (task.id, task.state, task.spec.command) == (TaskId(7), TaskState.RUNNING, "sleep")
    assert (task.spec.retries, task.retries_used, task.move_requested, task.previous_node) == (
        0,
        0,
        False,
        None,
    )
    assert (node.hostname, node.draining) == ("n1", False)


def test_users_and_tokens_of_before_are_numbered_as_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    _make_first_schema(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO users VALUES ('zoe', 'admin', 1, 10), ('ada', 'admin', 1, 20)")
        for token, made in (("bb", 20), ("aa", 30), ("cc", 10)):
            row = (token, "ada", token, "admin", token, made)
            connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", row)
    store = open_store(path)
    try:
        users = asyncio.run(store.read(queries.all_users))
        tokens = asyncio.run(store.read(queries.all_tokens))
    finally:
        store.close()
    assert {user.name: user.number for user in users} == {"zoe": 1, "ada": 2}
    assert {token.id: token.number for token in tokens} == {"cc": 1, "bb": 2, "aa": 3}
    assert {token.last_used for token in tokens} == {None}


def _make_first_schema(path: Path) -> None:
    """A database as the first release left it, with a task that runs and its node."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO tasks (id, spec, task_type, owner, submitted_at, state, attempt, revision,"
            " assigned_node, kill_requested) VALUES (7, ?, 'command', 'ada', 0, 'running', 1, 1, 'n1', 0)",
            (b'{"command":"sleep","arguments":["9"]}',),
        )
        connection.exec_driver_sql(
            "INSERT INTO nodes VALUES ('n1', 'key', 'ada', 0, NULL, NULL, ?)", (b"[]",)
        )
    engine.dispose()
    path.chmod(0o600)
