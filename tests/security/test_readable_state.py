"""State that another user of the host's machine could read: refused where it stands, never made.

The database holds commands, environments, hashes of tokens and the gateway's key; SQLite keeps the newest of
it in files beside it, which take the database's own mode.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.cli.local.files import ensure_local_files
from kohakuriver.host.backup import create_backup, restore_backup
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.writes import meta_value
from kohakuriver.logging_setup import set_up_logging
from kohakuriver.models.enums import LogLevel
from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.trust.identity import Identity
from support.host.control import control_room


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The worst that a service may have been started with."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_database_that_others_can_read_is_refused(tmp_path: Path, ending: str, mode: int) -> None:
    db_file = tmp_path / "host.db"
    open_store(db_file).close()
    told = db_file.with_name(f"host.db{ending}")
    told.touch(mode=0o600)
    told.chmod(mode)
    before = db_file.read_bytes()
    with pytest.raises(Unavailable, match=f"chmod 600 {told}"):
        open_store(db_file)
    assert (db_file.read_bytes(), stat.S_IMODE(told.stat().st_mode)) == (before, mode)
    told.chmod(0o600)
    open_store(db_file).close()


def test_a_link_to_a_database_is_looked_at_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.db", tmp_path / "host.db"
    open_store(real).close()
    link.symlink_to(real)
    open_store(link).close()
    (tmp_path / "far" / "real.db-wal").touch(mode=0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        open_store(link)


@pytest.mark.root
def test_a_database_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    db_file = tmp_path / "host.db"
    open_store(db_file).close()
    os.chown(db_file, 12345, 12345)
    with pytest.raises(Unavailable, match="chmod 600"):
        open_store(db_file)


def test_a_new_state_is_closed_whatever_the_umask(tmp_path: Path, open_umask: None) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path / "state") as room:
            await room.join()
            await room.submit()
            reserve = tmp_path / "state" / "host.db.reserve"
            async with asyncio.timeout(20):
                while not reserve.exists():
                    await asyncio.sleep(0.02)
            found = modes(tmp_path / "state")
            assert {"host.db", "host.db-wal", "host.db-shm", "host.db.reserve"} <= found.keys()
            assert {name: mode for name, mode in found.items() if mode & 0o077} == {}
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700

    asyncio.run(scenario())


def test_a_backup_and_what_is_restored_are_closed_whatever_the_umask(
    tmp_path: Path, open_umask: None
) -> None:
    db_file = tmp_path / "state" / "host.db"
    store = open_store(db_file)
    asyncio.run(store.write(partial(meta_value, key="cluster_id", default="c1")))
    store.close()
    Identity.load_or_create(db_file.with_name("host_identity.key"))
    archive = tmp_path / "state.tar.gz"
    create_backup(db_file, archive)
    restore_backup(archive, tmp_path / "again" / "host.db")
    restore_backup(archive, db_file, force=True)
    open_to_others = [
        str(path) for path in tmp_path.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []
    open_store(tmp_path / "again" / "host.db").close()
    db_file.chmod(0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        create_backup(db_file, tmp_path / "second.tar.gz")


def test_up_closes_the_database_that_it_made_itself_and_no_other(tmp_path: Path) -> None:
    base = tmp_path / "base"
    ensure_local_files(base)
    assert stat.S_IMODE((base / "host").stat().st_mode) == 0o700
    own = base / "host" / "kohakuriver.db"
    for ending in ("", "-wal", "-shm"):
        own.with_name(f"{own.name}{ending}").touch(mode=0o644)
    ensure_local_files(base)
    assert set(modes(own.parent).values()) == {0o600}
    other = tmp_path / "elsewhere.db"
    other.touch()
    other.chmod(0o644)
    config = base / "host_config.py"
    config.write_text(config.read_text().replace(str(own), str(other)))
    ensure_local_files(base)
    assert stat.S_IMODE(other.stat().st_mode) == 0o644


def test_a_log_file_is_closed_to_strangers_whatever_the_umask(tmp_path: Path, open_umask: None) -> None:
    import logging

    root = logging.getLogger()
    kept, level = root.handlers, root.level
    root.handlers = []
    try:
        set_up_logging(LogLevel.INFO, str(tmp_path / "host.log"))
        logging.getLogger("test").info("a line")
        for handler in root.handlers:
            handler.close()
    finally:
        root.handlers, root.level = kept, level
    assert stat.S_IMODE((tmp_path / "host.log").stat().st_mode) == 0o640
    assert (tmp_path / "host.log").read_text().strip()
