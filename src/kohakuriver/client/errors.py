"""What the host's refusals become here: the tree of `models.errors`, chosen by the HTTP status alone."""

import json
from typing import Any

from kohakuriver.models import errors


class HostUnreachable(errors.Unavailable):
    """No host answered at that address; nothing is known of what became of the request."""

    code = "host_unreachable"


class HostNotProven(errors.Denied):
    """What answers is not proven to be the host that is meant, so it got no token."""

    code = "host_not_proven"


class AnswerNotUnderstood(errors.KohakuRiverError):
    """The host answered with something that this version cannot read."""

    code = "answer_not_understood"


_BY_STATUS: dict[int, type[errors.KohakuRiverError]] = {
    kind.http_status: kind
    for kind in (
        errors.Unauthenticated,
        errors.Denied,
        errors.NotFound,
        errors.Conflict,
        errors.TooLarge,
        errors.TooMany,
        errors.WrongAddress,
        errors.EngineFault,
        errors.Unavailable,
    )
}

_KINDS: tuple[type[errors.KohakuRiverError], ...] = (
    errors.InvalidInput,
    errors.NoCapacity,
    *_BY_STATUS.values(),
)
_BY_CODE = {kind.code: kind for kind in _KINDS}


def error_from_code(code: str, sentence: str) -> errors.KohakuRiverError:
    """Turn an error that came inside a stream into the one that it stands for."""
    return _BY_CODE.get(code, errors.EngineFault)(sentence)


def error_from_answer(status: int, body: bytes) -> errors.KohakuRiverError:
    """Turn an answer with an error status into the error that it stands for."""
    sentence, field = _read_detail(body)
    if status in (400, 422):
        return errors.InvalidInput(sentence or "the host refused the request as malformed", field)
    kind = _BY_STATUS.get(status, errors.KohakuRiverError)
    return kind(sentence or f"the host answered with HTTP status {status} and no explanation")


def _read_detail(body: bytes) -> tuple[str, str | None]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body[:200].decode("utf-8", "replace").strip(), None
    if not isinstance(document, dict):
        return "", None
    field = document.get("field")
    detail = document.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(_read_item(item) for item in detail)
    return (detail if isinstance(detail, str) else ""), (field if isinstance(field, str) else None)


def _read_item(item: Any) -> str:
    """One entry of the list form of `detail`, which names the place of each fault in `loc`."""
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{place}: {item.get('msg', '')}" if place else str(item.get("msg", ""))
