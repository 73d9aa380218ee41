"""The text form of a key's fingerprint, as `wire.trust.identity` makes it and people copy it."""

import re

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def is_fingerprint(text: str) -> bool:
    return _FINGERPRINT.fullmatch(text) is not None
