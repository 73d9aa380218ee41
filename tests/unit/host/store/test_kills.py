"""A process that commits without pause is killed at any moment: what it acknowledged is there afterwards."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.writes import put_meta
from support.cluster.cluster import wait_for

ROUNDS = 20
_CALL = """
import sys
from pathlib import Path
from unit.host.store.test_kills import write_for_ever
write_for_ever(Path(sys.argv[1]), int(sys.argv[2]))
"""


def write_for_ever(db_file: Path, first: int) -> None:
    """Commit numbered rows and, after each commit, print its number; runs in a process of its own."""

    async def run() -> None:
        store = open_store(db_file)
        number = first
        while True:
            await store.write(partial(put_meta, key=f"row {number}", value="x" * 3000))
            os.write(1, f"{number}\n".encode())
            number += 1

    asyncio.run(run())


def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    db_file, told = tmp_path / "host.db", tmp_path / "told"
    randomness = random.Random(7)
    tests = Path(__file__).parents[3]
    acknowledged = 0
    for _ in range(ROUNDS):
        aim = acknowledged + randomness.randint(1, 60)
        with told.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _CALL, str(db_file), str(acknowledged + 1)],
                stdout=output,
                env={**os.environ, "PYTHONPATH": str(tests)},
            )
        try:
            wait_for(partial(_reached, told, aim, process), f"{aim} commits")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        acknowledged = _last_number(told)
        with sqlite3.connect(db_file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            kept = connection.execute("SELECT count(*) FROM meta WHERE key LIKE 'row %'").fetchone()[0]
        # One may have been committed and not answered any more; it is written again under its number.
        assert acknowledged <= kept <= acknowledged + 1


def _reached(told: Path, aim: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the writing process ended by itself"
    return _last_number(told) >= aim


def _last_number(told: Path) -> int:
    return int(told.read_bytes().split()[-1]) if told.stat().st_size else 0
