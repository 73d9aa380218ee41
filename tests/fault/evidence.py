"""Reads what a cluster has of tasks, for a record: the API's view, the output, the history in the store."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from fault.campaign_record import HistoryEvent, SeenTask

_PAGE = 500


def tasks_named(client: httpx2.Client, names: set[str]) -> list[dict[str, Any]]:
    """Every task of one of the names, whether its client heard of it or not."""
    found: list[dict[str, Any]] = []
    while True:
        answer = client.get("/api/tasks", params={"limit": _PAGE, "offset": len(found)})
        answer.raise_for_status()
        page = answer.json()
        found.extend(page)
        if len(page) < _PAGE:
            return [task for task in found if task["name"] in names]


def seen_tasks(client: httpx2.Client, database: Path, names: set[str]) -> Iterator[SeenTask]:
    with opened_store(database) as store:
        for task in tasks_named(client, names):
            streams = [client.get(f"/api/tasks/{task['task_id']}/{s}") for s in ("stdout", "stderr")]
            yield SeenTask(
                task_id=task["task_id"],
                name=task["name"],
                status=task["status"],
                attempt=task["attempt"],
                exit_code=task["exit_code"],
                error_message=task["error_message"],
                assigned_node=task["assigned_node"],
                stdout=streams[0].text,
                stderr=streams[1].text,
                stdout_bytes=task["stdout_bytes"],
                stderr_bytes=task["stderr_bytes"],
                history=tuple(_history(store, task["task_id"])),
            )


@contextlib.contextmanager
def opened_store(database: Path) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Give a function that queries the host's database, beside the running host."""
    connection = sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
    try:
        yield lambda query, *values: connection.execute(query, values).fetchall()
    finally:
        connection.close()


def _history(store: Callable[..., list[tuple[Any, ...]]], task_id: str) -> Iterator[HistoryEvent]:
    query = "SELECT kind, attempt, detail FROM task_events WHERE task_id = ? ORDER BY id"
    return (HistoryEvent(*row) for row in store(query, int(task_id)))
