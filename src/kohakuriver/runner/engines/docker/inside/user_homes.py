"""Home folders of tasks whose user is not root: each its own, from before its container is made until after.

One for all tasks of a node would let each leave programs and settings for the next one's owner. They lie in a
folder that only the runner's user enters, and so no other user of the node. All functions block.
"""

import os
import shutil
from pathlib import Path

from kohakuriver.files.system.id_maps import IdMaps
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import UserIds

_OWN_MODE, _OPEN_MODE = 0o700, 0o1777


class UserHomes:
    """`root` is made by the composition root; None: there are no home folders on this node."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def make(self, task_id: TaskId, user: UserIds, first_pid: int | None) -> tuple[Mount, ...]:
        """Return its mount; `first_pid`: a process in containers of this node. Raises OSError."""
        if self._root is None:
            return ()
        folder = self._root / str(task_id)
        folder.mkdir(mode=_OWN_MODE, exist_ok=True)
        try:
            os.chown(folder, *IdMaps.of_pid(first_pid).outside(user.uid, user.gid))
        except PermissionError:
            # The runner is not root and tasks run as somebody else, who is the only one in there.
            folder.chmod(_OPEN_MODE)
        return (Mount(str(folder), user.home),)

    def remove(self, task_id: TaskId) -> None:
        if self._root is not None:
            shutil.rmtree(self._root / str(task_id), ignore_errors=True)

    def remove_all_but(self, kept: set[TaskId]) -> None:
        names = {str(task_id) for task_id in kept}
        if self._root is not None and self._root.is_dir():
            for folder in self._root.iterdir():
                if folder.name not in names:
                    shutil.rmtree(folder, ignore_errors=True)
