"""The numeric user that command tasks run as, from RUNNER_USER or from the runner itself."""

import grp
import os
import pwd

from kohakuriver.models.errors import InvalidInput
from kohakuriver.runner.engines.base import UserIds


def tasks_user(name: str) -> UserIds:
    """Return ids and all groups of a user here; "" is the runner's own. InvalidInput if unknown."""
    if not name:
        return UserIds(os.getuid(), os.getgid(), tuple(sorted(os.getgroups())))
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise InvalidInput(f"RUNNER_USER {name!r} is not a user of this machine") from error
    members = {group.gr_gid for group in grp.getgrall() if name in group.gr_mem}
    members.update(os.getgrouplist(name, entry.pw_gid))
    return UserIds(entry.pw_uid, entry.pw_gid, tuple(sorted(members)))
