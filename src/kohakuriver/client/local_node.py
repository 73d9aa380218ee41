"""Keys of host and runner on this machine: whoever may read them can vouch for one at the other."""

import os
from pathlib import Path

from kohakuriver.wire import confirmed_host
from kohakuriver.wire.identity import Identity


def runner_folder(hostname: str) -> Path:
    """The private folder of this user's runner of that name."""
    return Path.home() / ".kohakuriver" / "runner" / hostname


def local_fingerprint(hostname: str) -> str | None:
    """Return the fingerprint of this user's runner of that name; None while it has no key yet.

    Raises InvalidInput for a key file that others could have read or made.
    """
    return _fingerprint_at(runner_folder(hostname) / "identity")


def local_host_fingerprint(db_file: Path) -> str | None:
    """Return the fingerprint of the host whose state is in that database; None while it has no key yet.

    Raises InvalidInput for a key file that others could have read or made, or that is another user's.
    """
    return _fingerprint_at(db_file.with_name("host_identity.key"))


def confirm_host(hostname: str, fingerprint: str) -> Path:
    """Have this user's runner of that name enrol with that host; returns the file that says so."""
    return confirmed_host.confirm_host(runner_folder(hostname), fingerprint)


def _fingerprint_at(path: Path) -> str | None:
    return Identity.load_or_create(path).fingerprint if os.path.lexists(path) else None
