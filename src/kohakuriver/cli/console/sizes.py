"""Sizes and times as people write and read them."""

import re
from datetime import UTC, datetime

from kohakuriver.models.errors import InvalidInput

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?)\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_LARGEST = 1 << 60


def parse_size(text: str) -> int:
    """Read a size in bytes: `1024`, `256M`, `1.5G`, `2GiB`; units are powers of 1024.

    Raises InvalidInput with the form that is expected; a part of a byte is dropped.
    """
    match = _SIZE.fullmatch(text.strip()) if text.isascii() else None
    if match is None:
        raise InvalidInput(
            f"{text[:60]!r} is not a size; write bytes or a number with K, M, G or T, such as 256M"
        )
    whole, _, part = match["number"].partition(".")
    shift = _UNITS[match["unit"].upper()]
    size = (int(whole) << shift) + (int(part or 0) << shift) // int("1" + "0" * len(part))
    if size > _LARGEST:
        raise InvalidInput(f"{text[:60]!r} is larger than any machine's memory")
    return size


def size_text(amount_bytes: int | None) -> str:
    """Write a size with three significant digits; `-` where it is not known."""
    if amount_bytes is None:
        return "-"
    amount = float(amount_bytes)
    for unit in ("B", "K", "M", "G", "T"):
        if amount < 1000 or unit == "T":
            break
        amount /= 1024
    return f"{amount:.0f}{unit}" if amount >= 100 or unit == "B" else f"{amount:.3g}{unit}"


def age_text(since: datetime | None, now: datetime) -> str:
    """Write how long ago a moment was; `-` where it is not known."""
    return "-" if since is None else duration_text((now - since).total_seconds())


def moment_text(at: datetime | None, now: datetime) -> str:
    """Write a moment and how long ago it was; nothing where it is not known."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({age_text(at, now)} ago)"


def duration_text(seconds: float) -> str:
    """Write a time span with its two largest units at most: `8s`, `3m20s`, `5h`, `12d`."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 1:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60:02d}s"
    if hours < 1:
        return f"{minutes}m"
    if hours < 10:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{hours}h" if days < 2 else f"{days}d"
