"""Frames of the streams about files, between host and runner; clients of the host get the same."""

from typing import Literal

import msgspec

from kohakuriver.models.enums import FileChange

MAX_WATCHED_PATHS = 100
ARCHIVE_END = '{"type":"end"}'
"""From the host: the tar stream is whole. The runner answers `ARCHIVE_DONE` once all of it is there."""
ARCHIVE_DONE = '{"type":"done"}'


class WatchFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`watching` with the paths; `change` with event, path and is_dir; `error` with its message; `pong`.

    A MOVE has its `old_path`. `rescan`: changes are missing, so look at the folders again.
    """

    type: Literal["watching", "change", "error", "pong"]
    event: FileChange | None = None
    path: str | None = None
    is_dir: bool | None = None
    old_path: str | None = None
    message: str | None = None
    rescan: bool = False
    paths: list[str] = []
