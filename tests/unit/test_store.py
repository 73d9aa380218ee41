"""The store: migrations lead to the tables that the code expects, and an old or foreign file is handled."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from kohakuriver.host.store.migrate import NEWEST, SCRIPTS
from kohakuriver.host.store.store import open_store
from kohakuriver.host.store.tables import metadata
from kohakuriver.models.errors import Unavailable


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
