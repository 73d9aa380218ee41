"""Backups of the host's state: of one moment while it is written to, checked throughout, restored whole."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kohakuriver.host.backup import create_backup, restore_backup, verify_backup
from kohakuriver.host.backup.archive import DATABASE_NAME, KEY_NAME, MANIFEST_NAME, Manifest
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.sqlite.state_lock import restore_marker, state_held
from kohakuriver.host.store.writes import meta_value, put_meta
from kohakuriver.models.errors import Conflict, InvalidInput, NotFound, Unavailable
from kohakuriver.wire.trust.identity import Identity

CLUSTER_ID = "0123456789abcdef"


@pytest.fixture
def db_file(tmp_path: Path) -> Path:
    """The state of a host that ran once."""
    path = tmp_path / "state" / "host.db"
    store = open_store(path)
    asyncio.run(store.write(partial(meta_value, key="cluster_id", default=CLUSTER_ID)))
    store.close()
    Identity.load_or_create(path.with_name(KEY_NAME))
    return path


def meta_of(db_file: Path, key: str) -> str | None:
    with sqlite3.connect(db_file) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def set_meta(db_file: Path, key: str, value: str) -> None:
    store = open_store(db_file)
    asyncio.run(store.write(partial(put_meta, key=key, value=value)))
    store.close()


def test_a_backup_comes_back_as_it_was(db_file: Path, tmp_path: Path) -> None:
    key = db_file.with_name(KEY_NAME).read_bytes()
    set_meta(db_file, "word", "before")
    create_backup(db_file, tmp_path / "backup")
    set_meta(db_file, "word", "after")
    db_file.with_name(KEY_NAME).unlink()
    Identity.load_or_create(db_file.with_name(KEY_NAME))
    restored = restore_backup(tmp_path / "backup", db_file, force=True)
    assert meta_of(db_file, "word") == "before"
    assert db_file.with_name(KEY_NAME).read_bytes() == key
    assert restored.previous is not None
    assert meta_of(restored.previous / "host.db", "word") == "after"
    assert (restored.previous / KEY_NAME).read_bytes() != key


def test_a_backup_is_for_its_owner_alone_and_leaves_nothing_beside_it(db_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    create_backup(db_file, folder / "backup")
    assert [path.name for path in folder.iterdir()] == ["backup"]
    assert (folder / "backup").stat().st_mode & 0o777 == 0o600
    with tarfile.open(folder / "backup") as archive:  # anybody's tar reads it
        assert archive.getnames() == [MANIFEST_NAME, DATABASE_NAME, KEY_NAME]
    verify_backup(folder / "backup")
    assert [path.name for path in folder.iterdir()] == ["backup"]
    restore_backup(folder / "backup", tmp_path / "new" / "host.db")
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "new").iterdir()}
    assert modes == {"host.db": 0, KEY_NAME: 0, "host.db.lock": 0}


def test_a_backup_beside_a_busy_writer_is_of_one_moment(db_file: Path, tmp_path: Path) -> None:
    """The writer keeps two rows equal; no backup may see them differ."""

    async def scenario() -> None:
        store = open_store(db_file)
        made = 0

        def both(connection: object, number: int) -> None:
            put_meta(connection, "left", f"{number}" + "x" * 2000)  # type: ignore[arg-type]
            put_meta(connection, "right", f"{number}" + "x" * 2000)  # type: ignore[arg-type]

        async def write_on() -> None:
            number = 0
            while made < 5:
                number += 1
                await store.write(partial(both, number=number))

        writing = asyncio.create_task(write_on())
        while made < 5:
            await asyncio.to_thread(create_backup, db_file, tmp_path / f"backup-{made}")
            made += 1
        await writing
        store.close()

    asyncio.run(scenario())
    for number in range(5):
        restore_backup(tmp_path / f"backup-{number}", tmp_path / str(number) / "host.db")
        left, right = (meta_of(tmp_path / str(number) / "host.db", side) for side in ("left", "right"))
        assert left == right


def test_what_a_backup_holds_is_told(db_file: Path, tmp_path: Path) -> None:
    create_backup(db_file, tmp_path / "backup")
    contents = verify_backup(tmp_path / "backup")
    assert contents.manifest.cluster_id == CLUSTER_ID
    assert contents.host_fingerprint == Identity.load_or_create(db_file.with_name(KEY_NAME)).fingerprint
    assert (contents.tasks_by_state, contents.nodes, contents.users) == ({}, (), 0)


def test_a_backup_is_never_written_over_and_never_made_of_nothing(db_file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("somebody's file")
    with pytest.raises(Conflict, match="there already"):
        create_backup(db_file, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "somebody's file"
    with pytest.raises(NotFound, match="no database"):
        create_backup(tmp_path / "nowhere.db", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_damaged_database_makes_no_backup(db_file: Path, tmp_path: Path) -> None:
    size = db_file.stat().st_size
    with db_file.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 4096)
    with pytest.raises(Unavailable, match=r"damaged|malformed"):
        create_backup(db_file, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_backup_never_takes_the_last_room_of_a_disk(
    db_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=63 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(Unavailable, match=r"needs 64 MiB.*has 63 MiB free"):
        create_backup(db_file, tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def test_nothing_is_restored_while_a_host_holds_the_state(db_file: Path, tmp_path: Path) -> None:
    create_backup(db_file, tmp_path / "backup")
    before = db_file.read_bytes()
    with state_held(db_file), pytest.raises(Conflict, match=rf"host runs.*process {os.getpid()}.*stop it"):
        restore_backup(tmp_path / "backup", db_file, force=True)
    assert db_file.read_bytes() == before


def test_a_state_that_is_there_is_replaced_with_force_alone(db_file: Path, tmp_path: Path) -> None:
    create_backup(db_file, tmp_path / "backup")
    with pytest.raises(Conflict, match="--force"):
        restore_backup(tmp_path / "backup", db_file)
    assert sorted(path.name for path in db_file.parent.iterdir()) == ["host.db", "host.db.lock", KEY_NAME]


@pytest.mark.parametrize("step", range(4))
def test_no_host_starts_on_a_restore_that_was_cut_short_until_it_is_repeated(
    db_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Two files are put aside and two come in their place; each of these moves is the last one once."""
    set_meta(db_file, "word", "restored")
    create_backup(db_file, tmp_path / "backup")
    set_meta(db_file, "word", "newer")
    replace, left = Path.replace, step

    def cut_short(self: Path, target: Path) -> Path:
        nonlocal left
        if not left:
            raise OSError("the power went")
        left -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut_short)
    with pytest.raises(Unavailable, match="power"):
        restore_backup(tmp_path / "backup", db_file, force=True)
    monkeypatch.undo()
    assert restore_marker(db_file).exists()
    with pytest.raises(Conflict, match="restore` again"), state_held(db_file):
        raise AssertionError("a host would have started on half a state")
    restore_backup(tmp_path / "backup", db_file)
    with state_held(db_file):
        assert meta_of(db_file, "word") == "restored"
    aside = [path for path in db_file.parent.glob("before-restore-*/host.db")]
    assert "newer" in [meta_of(path, "word") for path in aside]


def test_a_clock_that_stands_before_the_backup_is_to_be_set_first(db_file: Path, tmp_path: Path) -> None:
    manifest = create_backup(db_file, tmp_path / "backup")
    later = msgspec.structs.replace(manifest, made_at="2199-01-01T00:00:00+00:00")
    forged = forge(tmp_path, members_of(tmp_path / "backup"), later)
    with pytest.raises(Conflict, match="set the clock"):
        restore_backup(forged, tmp_path / "new" / "host.db")
    assert not (tmp_path / "new" / "host.db").exists()


def test_two_restores_of_one_backup_give_out_different_numbers(db_file: Path, tmp_path: Path) -> None:
    create_backup(db_file, tmp_path / "backup")
    restore_backup(tmp_path / "backup", db_file, force=True)
    first = open_store(db_file)
    with sqlite3.connect(db_file) as connection:
        connection.execute(
            "INSERT INTO meta VALUES ('newest_order', ?)", (str(1 << 62),)
        )  # as if the host's clock had been ahead
    first.close()
    restore_backup(tmp_path / "backup", db_file, force=True)
    mark = msgspec.json.decode(meta_of(db_file, "restored") or "")
    assert mark["gaps"][-1][1] >= 1 << 62


# Archives that nobody made for us


Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as opened:
        return [(info, (opened.extractfile(info) or io.BytesIO()).read()) for info in opened.getmembers()]


def forge(tmp_path: Path, members: Members, manifest: Manifest | None = None) -> Path:
    """Write an archive of these members; its manifest is made to fit unless one is given."""
    files = dict((info.name, data) for info, data in members)
    if manifest is None:
        manifest = msgspec.json.decode(files[MANIFEST_NAME], type=Manifest)
        entries = tuple(
            msgspec.structs.replace(
                entry, size_bytes=len(files[entry.name]), sha256=hashlib.sha256(files[entry.name]).hexdigest()
            )
            for entry in manifest.files
            if entry.name in files
        )
        manifest = msgspec.structs.replace(manifest, files=entries)
    path = tmp_path / "forged"
    with gzip.open(path, "wb") as stream:
        for info, data in members:
            content = msgspec.json.encode(manifest) if info.name == MANIFEST_NAME else data
            info.size = len(content) if info.isreg() else 0
            stream.write(info.tobuf(tarfile.GNU_FORMAT) + (content if info.isreg() else b""))
            stream.write(bytes(-info.size % 512))
        stream.write(bytes(1024))
    return path


def _named(name: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        members[1][0].name = name
        return members

    return change


def _as_type(kind: bytes, target: str = "/etc/shadow") -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        members[1][0].type, members[1][0].linkname = kind, target
        return members

    return change


def _twice(members: Members) -> Members:
    return [*members, members[1]]


def _without_key(members: Members) -> Members:
    return members[:2]


def _extra(members: Members) -> Members:
    return [*members, (tarfile.TarInfo("more"), b"of it")]


def _other_order(members: Members) -> Members:
    return [members[1], members[0], members[2]]


def _with_trigger(members: Members) -> Members:
    return _with_sql(members, "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM tasks; END")


def _with_nameless_trigger(members: Members) -> Members:
    return _with_sql(members, 'CREATE TRIGGER "" AFTER INSERT ON meta BEGIN DELETE FROM tasks; END')


def _with_sql(members: Members, statement: str) -> Members:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(members[1][1])
    connection.execute(statement)
    connection.commit()
    members[1] = (members[1][0], connection.serialize())
    connection.close()
    return members


def _no_database(members: Members) -> Members:
    return [members[0], (members[1][0], b"SQLite format 3\0" + b"?" * 5000), members[2]]


def _no_key(members: Members) -> Members:
    return [*members[:2], (members[2][0], b"not a key")]


@pytest.mark.parametrize(
    "change",
    [
        _named("../escaped"),
        _named("/tmp/escaped"),
        _named(f"./{DATABASE_NAME}"),
        _as_type(tarfile.SYMTYPE),
        _as_type(tarfile.LNKTYPE),
        _as_type(tarfile.CHRTYPE),
        _as_type(tarfile.FIFOTYPE),
        _as_type(tarfile.DIRTYPE),
        _as_type(tarfile.GNUTYPE_LONGNAME),
        _as_type(tarfile.GNUTYPE_SPARSE),
        _as_type(tarfile.XHDTYPE),
        _twice,
        _without_key,
        _extra,
        _other_order,
        _with_trigger,
        _with_nameless_trigger,
        _no_database,
        _no_key,
    ],
)
def test_an_archive_that_is_no_backup_is_refused_and_changes_nothing(
    db_file: Path, tmp_path: Path, change: Callable[[Members], Members]
) -> None:
    create_backup(db_file, tmp_path / "backup")
    before = sorted(path.name for path in db_file.parent.iterdir())
    forged = forge(tmp_path, change(members_of(tmp_path / "backup")))
    with pytest.raises(InvalidInput):
        verify_backup(forged)
    with pytest.raises(InvalidInput):
        restore_backup(forged, db_file, force=True)
    assert sorted(path.name for path in db_file.parent.iterdir() if path.suffix != ".lock") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "forged", "state"]


def test_a_backup_of_a_newer_program_is_refused(db_file: Path, tmp_path: Path) -> None:
    with sqlite3.connect(db_file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    create_backup(db_file, tmp_path / "backup")
    with pytest.raises(InvalidInput, match="newer program"):
        restore_backup(tmp_path / "backup", tmp_path / "new" / "host.db")
    assert not (tmp_path / "new" / "host.db").exists()


def test_hashes_and_sizes_that_do_not_fit_are_refused(db_file: Path, tmp_path: Path) -> None:
    manifest = create_backup(db_file, tmp_path / "backup")
    members = members_of(tmp_path / "backup")
    database, key = manifest.files
    for wrong in (
        msgspec.structs.replace(database, sha256="0" * 64),
        msgspec.structs.replace(database, size_bytes=database.size_bytes - 1),
        msgspec.structs.replace(database, size_bytes=-1),
    ):
        forged = forge(tmp_path, members, msgspec.structs.replace(manifest, files=(wrong, key)))
        with pytest.raises(InvalidInput):
            verify_backup(forged)
    huge = msgspec.structs.replace(database, size_bytes=1 << 60)
    forged = forge(tmp_path, members, msgspec.structs.replace(manifest, files=(huge, key)))
    with pytest.raises(Unavailable, match="needs"):
        verify_backup(forged)


def test_a_backup_that_was_cut_off_or_bent_anywhere_is_refused(db_file: Path, tmp_path: Path) -> None:
    create_backup(db_file, tmp_path / "backup")
    contents, same = verify_backup(tmp_path / "backup"), 0
    whole = (tmp_path / "backup").read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.raises(InvalidInput):
            verify_backup(tmp_path / "cut")
    for place in range(20, len(whole), max(1, len(whole) // 40)):
        bent = bytearray(whole)
        bent[place] ^= 0x10
        (tmp_path / "bent").write_bytes(bent)
        # Some bits say in another way what was said: what is unpacked is the same then.
        with contextlib.suppress(InvalidInput):
            assert verify_backup(tmp_path / "bent") == contents
            same += 1
    assert same < 20
    (tmp_path / "longer").write_bytes(whole + gzip.compress(b"more"))
    with pytest.raises(InvalidInput):
        verify_backup(tmp_path / "longer")
