"""Databases as earlier releases left them: migrations up to one of them, and rows as that one knew them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from kohakuriver.host.store.migrate import SCRIPTS

Row = tuple[str, Mapping[str, object]]
"""A table, and the values of a row by their columns."""


def make_old_database(path: Path, revision: str, rows: Iterable[Row] = ()) -> None:
    """Make it with the tables of that revision; only its owner can read it, as the host wants it."""
    path.touch(mode=0o600)
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for table, row in rows:
            columns, places = ", ".join(row), ", ".join("?" * len(row))
            statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"
            connection.exec_driver_sql(statement, tuple(row.values()))
    engine.dispose()


def task_row(number: int, **facts: object) -> Row:
    """A task of ada's that waits, in all that any revision asks of one; but for the facts."""
    row: dict[str, object] = {
        "id": number,
        "spec": b'{"command":"sleep","arguments":["9"]}',
        "task_type": "command",
        "owner": "ada",
        "submitted_at": 0,
        "state": "pending",
        "attempt": 0,
        "revision": 0,
        "kill_requested": 0,
    }
    return "tasks", row | facts


def user_row(name: str, role: str = "admin", created_at: int = 0) -> Row:
    return "users", {"name": name, "role": role, "active": 1, "created_at": created_at}


def token_row(name: str, user: str, hashed: str = "", created_at: int = 0) -> Row:
    """A token whose id is its name; nobody has it, unless its hash is given."""
    row = {"id": name, "user_name": user, "name": name, "role": "admin", "hash": hashed or name}
    return "tokens", row | {"created_at": created_at}
