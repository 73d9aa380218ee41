"""Where configuration files are kept."""

import os
from pathlib import Path


def default_path(file_name: str) -> Path:
    """Where a program's file is looked for when none is named."""
    return Path(os.path.expanduser("~")) / ".kohakuriver" / file_name


def is_absent(path: Path) -> bool:
    """Tell whether there is surely nothing at the path; what cannot be looked at is not absent."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
