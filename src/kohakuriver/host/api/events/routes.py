"""What happens in the cluster, as server-sent events."""

from typing import Annotated, Literal

import msgspec
from fastapi import Header, Query
from starlette.responses import Response

from kohakuriver.host.api.events.feed import Sees
from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.http.followed_stream import FollowedStream
from kohakuriver.host.api.permissions import Call, ViewerCall
from kohakuriver.host.auth import Action, may
from kohakuriver.models.numbers import whole_number

MEDIA_TYPE = "text/event-stream"
PATIENCE_SECONDS = 20.0
"""How long events may wait for a client that does not read."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Follow = Annotated[bool, Query(description="stay and go on as things happen; false: what there is, then end")]
Mine = Annotated[bool, Query(description="only one's own tasks")]
After = Annotated[
    int | None, Query(ge=0, lt=1 << 63, description="go on after this event, as Last-Event-ID does")
]
LastId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=40, description="the last id that was received")
]


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it stands in the stream; `data` is JSON. Those of tasks have an id to go on from."""

    event: Literal["ready", "task", "node", "gap", "dropped", "end"]
    data: str
    id: str = ""


async def events(
    call: ViewerCall,
    follow: Follow = True,
    mine: Mine = False,
    after: After = None,
    last_id: LastId = None,
) -> Response:
    """Report tasks and nodes as things happen: `event: task` (one line of a task's history, with its number
    as `id`), `event: node` (how a node stands now), `ready` first with the id at which the stream begins, and
    as the last one `end` or `dropped`, which says why. With `Last-Event-ID` nothing of tasks is missed.
    """
    sees = _sees(call, mine)
    position = _number(last_id, after)
    feed = call.parts.events
    if not follow:
        return Response(await feed.page(position or 0, sees), media_type=MEDIA_TYPE)
    texts = feed.follow(position, sees, call.held)
    return FollowedStream(texts, 200, _HEADERS, MEDIA_TYPE, PATIENCE_SECONDS)


def _number(last_id: str | None, after: int | None) -> int | None:
    """A client that reconnects by itself sends the header; one that has just begun, the parameter."""
    number = whole_number(last_id or "")
    return after if number is None else number


def _sees(call: Call, mine: bool) -> Sees | None:
    actor = call.actor
    if mine:
        return lambda owner: owner == actor.name
    if may(actor, Action.READ_TASK):
        return None
    return lambda owner: may(actor, Action.READ_TASK, owner)


ENDPOINTS = (Endpoint("GET", "/api/events", events, ServerSentEvent, media_type=MEDIA_TYPE),)
