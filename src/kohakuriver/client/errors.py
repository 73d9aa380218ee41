"""What the host's refusals become here: the tree of `models.errors`, chosen only by the HTTP status."""

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


class NotAHost(AnswerNotUnderstood):
    """What answers at the address is no KohakuRiver host, nor something that stands before one."""

    code = "not_a_host"


TRANSIENT = (errors.Unavailable, errors.TooMany, AnswerNotUnderstood)
"""What a wait that has begun bears with for a while: a host, or what stands before it, that restarts."""

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

_GATEWAY_TIMEOUT = 504

_KINDS: tuple[type[errors.KohakuRiverError], ...] = (
    errors.InvalidInput,
    errors.NoCapacity,
    errors.ProgramMissing,
    errors.ProgramNotExecutable,
    *_BY_STATUS.values(),
)
_BY_CODE = {kind.code: kind for kind in _KINDS}


def error_from_code(code: str, sentence: str) -> errors.KohakuRiverError:
    """Turn an error that came inside a stream into the one that it stands for."""
    return _BY_CODE.get(code, errors.EngineFault)(sentence)


def error_from_answer(status: int, body: bytes, place: str = "") -> errors.KohakuRiverError:
    """Turn an answer with an error status into the error that it stands for; `place` is where it came from.

    A host says why in a form of its own. What is in another form comes from something else: a proxy that does
    not reach the host, or another program at that address. Its text is not shown, for it may quote anything.
    """
    found = _read_detail(body)
    if found is None:
        return _error_from_others(status, place)
    sentence, field = found
    if status in (400, 422):
        return errors.InvalidInput(sentence or "the host refused the request as malformed", field)
    if status == _GATEWAY_TIMEOUT:
        return HostUnreachable(sentence or "the host did not answer in time")
    kind = _BY_STATUS.get(status, errors.KohakuRiverError)
    return kind(sentence or f"the host answered with HTTP status {status} and no explanation")


def _error_from_others(status: int, place: str) -> errors.KohakuRiverError:
    at = f" at {place}" if place else ""
    if status >= 500:
        return HostUnreachable(
            f"no host answers{at}: what stands before it says HTTP status {status}; "
            "look whether the host runs, and whether the proxy reaches it"
        )
    if 300 <= status < 400:
        return NotAHost(
            f"what answers{at} points to another address (HTTP status {status}), which is not followed; "
            "give the host's own address with --host and --port"
        )
    return NotAHost(
        f"what answers{at} is no KohakuRiver host (HTTP status {status}); "
        "give the host's address with --host and --port"
    )


def _read_detail(body: bytes) -> tuple[str, str | None] | None:
    """The sentence of a host and the field to blame; None: it is not in a host's form."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    field, detail = document.get("field"), document.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(_read_item(item) for item in detail)
    if not isinstance(detail, str):
        return None
    return detail, (field if isinstance(field, str) else None)


def _read_item(item: Any) -> str:
    """One entry of the list form of `detail`, which names the place of each fault in `loc`."""
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{place}: {item.get('msg', '')}" if place else str(item.get("msg", ""))
