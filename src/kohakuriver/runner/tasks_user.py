"""The numeric user that command tasks run as, from RUNNER_USER or from the runner itself."""

import grp
import os
import pwd
from collections.abc import Iterable

from kohakuriver.models.errors import InvalidInput
from kohakuriver.runner.engines.contract.spec import UserIds


def tasks_user(name: str) -> UserIds:
    """Return ids and all groups of a user here; "" is the runner's own. InvalidInput if unknown."""
    if not name:
        return _with_names(os.getuid(), os.getgid(), os.getgroups(), _own_name())
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise InvalidInput(f"RUNNER_USER {name!r} is not a user of this machine") from error
    members = {group.gr_gid for group in grp.getgrall() if name in group.gr_mem}
    members.update(os.getgrouplist(name, entry.pw_gid))
    return _with_names(entry.pw_uid, entry.pw_gid, members, name)


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def _with_names(uid: int, gid: int, groups: Iterable[int], name: str) -> UserIds:
    members = tuple(sorted(set(groups)))
    known = [(member, _group_name(member)) for member in sorted({gid, *members})]
    return UserIds(uid, gid, members, name, tuple((member, text) for member, text in known if text))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
