"""Points in time as users write them: pure."""

import re
from datetime import UTC, datetime, timedelta

from kohakuriver.models.errors import InvalidInput

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(?:[0-9]{1,9}[smhdw])+", re.ASCII)
_PART = re.compile(r"([0-9]+)([smhdw])", re.ASCII)


def read_moment(text: str, now: datetime) -> datetime:
    """Return the moment that is meant: so long before now (`10m`, `1h30m`), or a time as ISO 8601 writes it.

    One that names no zone is of the zone of this machine. Raises InvalidInput.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
            return now - timedelta(seconds=seconds)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text[:60]!r} is no time; write how long ago (10m, 1h30m, 2d) or when "
            "(2026-11-29, 2026-11-29T14:30, 2026-11-29T13:30:00Z)"
        ) from error
