"""Keys of host and runner on this machine: whoever may read them can vouch for one at the other."""

import os
import socket
from pathlib import Path

from kohakuriver import confirmed_host
from kohakuriver.node_folders import IDENTITY_FILE, folder_of_this_machine, runner_folders, this_machine
from kohakuriver.wire.trust.identity import Identity


def local_node() -> str:
    """Name of the node that this user's runner on this machine is, or is going to be."""
    return folder_of_this_machine(socket.gethostname(), runner_folders(), this_machine()).node


def local_fingerprint(node: str) -> str | None:
    """Return the fingerprint of this user's runner of that name; None while it has no key yet.

    Raises InvalidInput for a key file that others could have read or made.
    """
    return _fingerprint_at(runner_folders() / node / IDENTITY_FILE)


def local_host_fingerprint(db_file: Path) -> str | None:
    """Return the fingerprint of the host whose state is in that database; None while it has no key yet.

    Raises InvalidInput for a key file that others could have read or made, or that is another user's.
    """
    return _fingerprint_at(db_file.with_name("host_identity.key"))


def confirm_host(node: str, fingerprint: str) -> Path:
    """Have this user's runner of that name enrol with that host; returns the file that says so."""
    return confirmed_host.confirm_host(runner_folders() / node, fingerprint)


def _fingerprint_at(path: Path) -> str | None:
    return Identity.load_or_create(path).fingerprint if os.path.lexists(path) else None
