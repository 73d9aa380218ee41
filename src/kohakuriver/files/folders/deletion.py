"""A folder of the system's own that is deleted, in a place that others may reach. Blocking."""

import os
from collections.abc import Sequence
from pathlib import Path

from kohakuriver.files.folders.tree_removal import remove_tree
from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.errors import Denied, EngineFault


def delete_folder(start: Path, names: Sequence[str], name: str) -> bool:
    """Delete the folder `name`, to whose own folder `names` lead from `start`; tell whether it was there.

    No link is followed. Raises EngineFault if it cannot be deleted, Conflict if something is mounted in it.
    """
    path = start.joinpath(*names, name)
    try:
        with folder_below(start, names, access=os.O_RDONLY) as folder:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            remove_tree(folder, os.fsencode(name), os.fsencode(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EngineFault(f"{path} cannot be deleted: {error.strerror or error}") from error
    except Denied as error:
        # Whoever asked may do it: it is this program that may not.
        raise EngineFault(f"{path} cannot be deleted by this user: {error}") from error
    return True
