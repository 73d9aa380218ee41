"""Times as the engine writes them."""

from datetime import UTC, datetime


def engine_time(text: str) -> datetime | None:
    """Read the engine's RFC 3339 time with nanoseconds; None for its zero (year 1)."""
    if text.startswith("0001-") or not text:
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    digits = fraction[:6] if fraction[:1].isdigit() else ""
    moment = datetime.fromisoformat(whole).replace(microsecond=int(digits.ljust(6, "0")) if digits else 0)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
