"""Mounts as Docker's `-v` writes them; what nodes know nothing of is refused by its name."""

import os

from kohakuriver.models.errors import InvalidInput

_WITHOUT_EFFECT = frozenset(("consistent", "cached", "delegated"))
"""They are for other systems than Linux, and Docker passes over them here too."""


def read_mount(text: str) -> str:
    """Read `PATH:PATH[:OPTION,…]`; a path from here (`./data`) is made whole. Return the form of requests."""
    from kohakuriver.models.spec.mounts import parse_mount

    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidInput(f"mount {text[:200]!r} is not of the form PATH-ON-THE-NODE:PATH[:ro]")
    options = [option for option in "".join(parts[2:]).split(",") if option not in _WITHOUT_EFFECT]
    options = [option for option in options if option]
    unknown = [option for option in options if option not in ("ro", "rw")]
    if unknown or len(set(options)) > 1:
        raise InvalidInput(f"mount {text[:200]!r}: options are ro or rw, not {','.join(options)[:60]!r}")
    source = parts[0]
    if source.startswith(("./", "../")) or source in (".", ".."):
        source = os.path.abspath(source)
    if not source.startswith("/"):
        raise InvalidInput(
            f"mount {text[:200]!r}: {source[:100]!r} would be a volume of Docker's, which nodes have not; "
            "write the absolute path of a folder of the node"
        )
    return str(parse_mount(":".join((source, parts[1], *options))))
