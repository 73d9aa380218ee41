"""What an engine that maps users (`userns-remap`) means for its node, in sentences for its administrator.

Root of a container is a user without rights on the node then. All that the runner gives workloads it gives to
the ids that they have here; what it cannot give is said.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedFolder

_USERNS = "name=userns"
_DATA_ROOT = re.compile(r"/(\d+)\.(\d+)$")
"""Such an engine keeps its data in a folder that is called after its root's user and group on the node."""
_NUMBER_OF_IDS = 65536


@dataclass(frozen=True, slots=True)
class UserMapping:
    """`root`: user and group on the node of root in containers; None: the engine maps nobody."""

    root: tuple[int, int] | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "UserMapping":
        """`info`: what the engine says of itself."""
        options = info.get("SecurityOptions") or ()
        found = _DATA_ROOT.search(str(info.get("DockerRootDir")))
        if found is None or not any(_USERNS in str(option).split(",") for option in options):
            return cls()
        return cls((int(found[1]), int(found[2])))

    def notices(self, folders: Sequence[GuardedFolder]) -> list[str]:
        """`folders`: those of the node that workloads are given. Blocking."""
        if self.root is None:
            return []
        user = self.root[0]
        closed = [folder.path for folder in folders if not self._may_write(folder.path)]
        return [
            f"the Docker engine maps users (userns-remap): user N of tasks and VPSs is user {user} + N "
            "of this machine, to whom what they write to /shared belongs; nothing privileged starts here",
            *(
                f"tasks and VPSs cannot write to {path}: it is closed to the users that the engine maps "
                f"theirs to; `chmod 1777 {path}`, or give it to user {user}"
                for path in closed
            ),
        ]

    def _may_write(self, path: str) -> bool:
        """Whether any of them may; one that is not there is another's business."""
        if self.root is None:
            return True
        try:
            facts = os.stat(path)
        except OSError:
            return True
        owners = range(self.root[0], self.root[0] + _NUMBER_OF_IDS)
        groups = range(self.root[1], self.root[1] + _NUMBER_OF_IDS)
        return bool(
            facts.st_mode & stat.S_IWOTH
            or (facts.st_mode & stat.S_IWUSR and facts.st_uid in owners)
            or (facts.st_mode & stat.S_IWGRP and facts.st_gid in groups)
        )
