"""The key of the runner on this machine, so that whoever may read it can vouch for it at the host."""

import os
from pathlib import Path

from kohakuriver.wire.identity import Identity


def local_fingerprint(hostname: str) -> str | None:
    """Return the fingerprint of this user's runner of that name; None while it has no key yet.

    Raises InvalidInput for a key file that others could have read or made.
    """
    path = Path.home() / ".kohakuriver" / "runner" / hostname / "identity"
    return Identity.load_or_create(path).fingerprint if os.path.lexists(path) else None
