"""What has been kept for long enough: what would go now, and having it go."""

from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, answer
from kohakuriver.host.api.permissions import OperatorCall
from kohakuriver.host.api.records import Record
from kohakuriver.host.retention import RetentionReport
from kohakuriver.models.enums import LeftoverKind


class LeftoverItem(Record, frozen=True, kw_only=True):
    """So many of one kind in one place. `place`: a node's name, or `host`. `size_bytes` null: not measured.

    `kept_days`: what the host's setting says; 0: none of it is removed for its age.
    """

    kind: LeftoverKind
    place: str
    count: int
    size_bytes: int | None
    kept_days: int


class LeftoverFault(Record, frozen=True, kw_only=True):
    """What could not be looked at, or removed."""

    place: str
    message: str


class LeftoversRecord(Record, frozen=True, kw_only=True):
    """What would go, or has gone."""

    items: list[LeftoverItem]
    faults: list[LeftoverFault]


async def look(call: OperatorCall) -> Response:
    """Show what has been kept for as long as the settings say, and would be removed now."""
    return answer(_record(await call.parts.retention.look()))


async def prune(call: OperatorCall) -> Response:
    """Remove it now instead of within the hour; what could not be removed is in `faults`."""
    report = await call.parts.retention.sweep()
    removed = (f"{item.count} {item.kind.value} on {item.place}" for item in report.items if item.count)
    call.trail.note("leftovers", ", ".join(removed) or "nothing")
    return answer(_record(report))


def _record(report: RetentionReport) -> LeftoversRecord:
    return LeftoversRecord(
        items=[
            LeftoverItem(
                kind=item.kind,
                place=item.place,
                count=item.count,
                size_bytes=item.size_bytes,
                kept_days=item.kept_days,
            )
            for item in report.items
        ],
        faults=[LeftoverFault(place=place, message=sentence) for place, sentence in report.faults],
    )


ENDPOINTS = (
    Endpoint("GET", "/api/prune", look, LeftoversRecord),
    Endpoint("POST", "/api/prune", prune, LeftoversRecord, audit="prune"),
)
