"""Tokens that `auth login` keeps for this user: one for each host, and sent to no other."""

import json
import os
from pathlib import Path
from typing import Any

from kohakuriver.models.errors import InvalidInput
from kohakuriver.private_files import is_private


def file_of_tokens() -> Path:
    return Path(os.path.expanduser("~")) / ".kohakuriver" / "tokens.json"


def kept_token(url: str) -> str | None:
    """The token of the host with this URL; raises InvalidInput for a file that others may read."""
    return _read().get(url)


def keep_token(url: str, token: str) -> None:
    _write({**_read(), url: token})


def forget_token(url: str) -> None:
    _write({known: token for known, token in _read().items() if known != url})


def _read() -> dict[str, str]:
    path = file_of_tokens()
    try:
        status = path.stat()
        document: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read; delete it and log in again ({error})") from error
    if not is_private(status):
        raise InvalidInput(f"{path} holds tokens and is open to other users; chmod 600 {path}")
    entries = document.items() if isinstance(document, dict) else ()
    return {url: token for url, token in entries if isinstance(token, str)}


def _write(tokens: dict[str, str]) -> None:
    from kohakuriver.cli.vps.ssh_files import folder, write_whole

    folder()
    write_whole(file_of_tokens(), json.dumps(tokens, indent=2) + "\n")
