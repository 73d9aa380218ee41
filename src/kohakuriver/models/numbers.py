"""Numbers in texts of other people: plain ASCII digits, and no more of them than can be meant.

Python's own `int` also reads signs, blanks, underscores, the digits of other scripts, and any number of them.
"""

_LARGEST_PORT = 65535


def whole_number(text: str, most_digits: int = 18) -> int | None:
    """Return the number; None for any other text."""
    if text.isascii() and text.isdigit() and len(text) <= most_digits:
        return int(text)
    return None


def port_number(text: str) -> int | None:
    """Return the port, from 1 to 65535; None for any other text."""
    port = whole_number(text, 5)
    return port if port is not None and 1 <= port <= _LARGEST_PORT else None
