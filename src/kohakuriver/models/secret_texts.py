"""What secrets look like in the middle of a text: tokens, credentials in headers, passwords in addresses."""

import re

HIDDEN = "(hidden)"
_SECRET_TEXT = re.compile(
    r"krj1\.[^\s'\",]+|kr_[\w-]{20,}|(?:Bearer|Basic)\s+[^\s'\",]+"
    r"|KohakuRiver[0-9]* [^\s:]+(?::[^\s:]+)+:[0-9a-f]{16,}|://[^/\s:@]+:[^/\s@]+@"
)
_SHORTEST_KNOWN = 6


def without_secrets(text: str, known: str | None = None) -> str:
    """Return the text with what looks like a secret hidden; `known` is one, whatever it looks like."""
    if known and len(known) >= _SHORTEST_KNOWN:
        text = text.replace(known, HIDDEN)
    return _SECRET_TEXT.sub(HIDDEN, text)
