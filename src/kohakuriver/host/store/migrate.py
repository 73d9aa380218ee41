"""Brings a database to the newest schema. Alembic is imported only when there is something to do."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import Unavailable

NEWEST = "0009"
"""The revision that `tables` describes; a test holds it against the migration scripts."""

SCRIPTS = Path(__file__).with_name("migrations")


def bring_to_newest(
    engine: Engine, transaction: Callable[[Engine], AbstractContextManager[Connection]]
) -> None:
    """Run the missing migrations, all in one `transaction`; a database of a newer program is refused."""
    with engine.connect() as connection:
        if _current(connection) == NEWEST:
            return
    with transaction(engine) as connection:
        _upgrade(connection)
        reach(CrashPoint.HOST_SCHEMA_MADE)
    reach(CrashPoint.HOST_SCHEMA_COMMITTED)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    current = _current(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise Unavailable(
            f"the host's database has schema {current}, which is newer than this program; "
            "install the newer program or restore an older backup"
        )
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable(
            f"the host's database could not be brought to the newest schema: {error}"
        ) from error
