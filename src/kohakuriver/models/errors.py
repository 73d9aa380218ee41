"""The one tree of errors, cut by what the caller should do about them.

Each error carries a sentence for the user that says what to do. `host.api` maps the classes to HTTP status
codes and `cli` maps those to exit statuses; both tables read `http_status` and nothing else.
"""

from typing import ClassVar


class KohakuRiverError(Exception):
    """Base of all errors that are shown to a user; `str(error)` is the sentence that is shown."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500


class InvalidInput(KohakuRiverError):
    """The request can never work as it stands; the caller must change it."""

    code = "invalid_input"
    http_status = 422

    def __init__(self, sentence: str, field: str | None = None) -> None:
        super().__init__(sentence)
        self.field = field


class SwitchedOff(KohakuRiverError):
    """It belongs to a part that this cluster does not have, or has not switched on."""

    code = "switched_off"
    http_status = 400


class Unauthenticated(KohakuRiverError):
    """No credential, or one that is not valid (any more)."""

    code = "unauthenticated"
    http_status = 401


class Denied(KohakuRiverError):
    """The caller is known and may not do this."""

    code = "denied"
    http_status = 403


class NotFound(KohakuRiverError):
    code = "not_found"
    http_status = 404


class Conflict(KohakuRiverError):
    """The object is in a state in which this cannot be done."""

    code = "conflict"
    http_status = 409


class TooLarge(KohakuRiverError):
    """The request is larger than the interface takes."""

    code = "too_large"
    http_status = 413


class QuotaExceeded(KohakuRiverError):
    """The caller has as much waiting as one user may have; it helps to wait, or to take something back."""

    code = "quota_exceeded"
    http_status = 429


class TooMany(KohakuRiverError):
    """Too many requests of this kind from there; trying later can help."""

    code = "too_many"
    http_status = 429


class WrongAddress(KohakuRiverError):
    """The host was called by a name that is not its own."""

    code = "wrong_address"
    http_status = 421


class NoCapacity(KohakuRiverError):
    """Nothing is wrong with the request, but there is no room; trying later can help."""

    code = "no_capacity"
    http_status = 409


class Unavailable(KohakuRiverError):
    """A part that is needed does not answer now; trying again can help."""

    code = "unavailable"
    http_status = 503


class EngineFault(KohakuRiverError):
    """The container engine or hypervisor refused or failed."""

    code = "engine_fault"
    http_status = 502


class ProgramMissing(EngineFault):
    """The image does not hold the program that is to run."""

    code = "program_missing"


class ProgramNotExecutable(EngineFault):
    """The image holds the program, and it cannot be executed."""

    code = "program_not_executable"


class HostRefused(KohakuRiverError):
    """The host answered its runner that the request cannot be; the same again will not help soon."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
