"""The file for a private key that the host makes: its place is taken before the host is asked.

So no VPS is made whose key, which is shown once, cannot be kept. The key is readable only by its owner,
and no file that is there already is written over, unless that is asked for.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kohakuriver.models.errors import Conflict, InvalidInput


def keys_folder() -> Path:
    """Where private keys go for which no other place is named."""
    return Path(os.path.expanduser("~")) / ".kohakuriver" / "keys"


class KeyFile:
    """A place that was taken: an empty file, `path` itself or one beside what is to be replaced."""

    def __init__(self, draft: Path, path: Path | None) -> None:
        self._draft = draft
        self._path = path

    def write(self, key: str, name: str) -> Path:
        """Put the key there and return where it is; `name` names the file if no path was known before."""
        path = self._path or self._draft.with_name(name)
        with self._draft.open("w") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        if path != self._draft:
            self._draft.replace(path)
        return path


@contextmanager
def reserved_key_file(path: Path | None, *, overwrite: bool) -> Iterator[KeyFile]:
    """Take the place for a key; it is given back if the body fails. `path` None: in `keys_folder`.

    Raises Conflict for a file that is there (unless `overwrite`), InvalidInput where none can be made.
    """
    folder = keys_folder() if path is None else path.parent
    try:
        if folder == keys_folder():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = _take(folder, path, overwrite)
    except FileExistsError as error:
        raise Conflict(
            f"{path} is there already; --force writes over it, --key-out-file names another place"
        ) from error
    except OSError as error:
        raise InvalidInput(f"a key cannot be written to {path or folder}: {error.strerror}") from error
    try:
        yield KeyFile(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _take(folder: Path, path: Path | None, overwrite: bool) -> Path:
    if path is not None and not overwrite:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return path
    if path is not None and path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    descriptor, name = tempfile.mkstemp(prefix=".key-", dir=folder)
    os.close(descriptor)
    return Path(name)
