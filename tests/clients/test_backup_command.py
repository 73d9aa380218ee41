"""`kohakuriver backup` as the command line runs it: what it prints, and how it ends when it cannot."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.writes import meta_value
from kohakuriver.wire.trust.identity import Identity
from support.clients.command_line import CommandLine
from support.cluster.config_files import write_config


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a host that ran once."""
    db_file = tmp_path / "state" / "river.db"
    store = open_store(db_file)
    asyncio.run(store.write(partial(meta_value, key="cluster_id", default="0123456789abcdef")))
    store.close()
    Identity.load_or_create(db_file.with_name("host_identity.key"))
    return write_config(tmp_path, f"DB_FILE = {str(db_file)!r}")


def test_a_backup_is_made_verified_and_restored(command: CommandLine, config: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "backup.tgz")
    made = command.run("backup", "create", file, "--config", str(config))
    assert (made.returncode, made.stderr) == (0, b"")
    assert b"0123456789abcdef" in made.stdout
    told = command.run("backup", "verify", file)
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"is sound" in told.stdout
    assert b"SHA256:" in told.stdout
    refused = command.run("backup", "restore", file, "--config", str(config))
    assert refused.returncode == 1
    assert b"--force" in refused.stderr
    restored = command.run("backup", "restore", file, "--config", str(config), "--force")
    assert (restored.returncode, restored.stderr) == (0, b"")
    assert b"before-restore-" in restored.stdout
    assert b"take them away again" in restored.stdout


def test_what_cannot_be_done_ends_with_the_status_that_says_so(
    command: CommandLine, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tgz"
    file.write_bytes(b"nothing of the kind")
    assert command.run("backup", "verify", str(file)).returncode == 2
    assert command.run("backup", "create", str(file), "--config", str(config)).returncode == 1
    elsewhere = write_config(tmp_path, f"DB_FILE = {str(tmp_path / 'nowhere.db')!r}", "other_config.py")
    missing = command.run("backup", "create", str(tmp_path / "new"), "--config", str(elsewhere))
    assert missing.returncode == 3
    assert missing.stderr.startswith(b"Error: there is no database")
