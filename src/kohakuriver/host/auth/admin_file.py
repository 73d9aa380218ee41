"""The administrator's token on the host's own machine, in a file that only its owner can read."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.host.auth.service import AuthService
from kohakuriver.models.errors import InvalidInput
from kohakuriver.private_files import read_private, write_private

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AdminFile:
    """What the file says of the host: where it is, and by which key the command line knows it."""

    url: str
    fingerprint: str


async def provide_admin_token(auth: AuthService, path: Path, host: AdminFile) -> None:
    """Leave `{"url", "fingerprint", "token"}` at `path` (0600) for the command line.

    A token that still works is kept. With authentication off there is none in the file.
    """
    known = await asyncio.to_thread(_read, path)
    token = await auth.admin_token(known.get("token")) if auth.enabled else None
    wanted = {"url": host.url, "fingerprint": host.fingerprint, **({"token": token} if token else {})}
    if known != wanted:
        await asyncio.to_thread(_write, path, wanted)
        log.info("admin_token_written", path=str(path))


def _read(path: Path) -> dict[str, str]:
    """What the file holds; empty if it is missing, open to others or not ours, for then it is renewed."""
    if not os.path.lexists(path):
        return {}
    try:
        document = json.loads(read_private(path))
    except (InvalidInput, ValueError) as error:
        log.warning("admin_token_renewed", path=str(path), reason=str(error))
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, str)}


def _write(path: Path, document: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, json.dumps(document).encode() + b"\n")
