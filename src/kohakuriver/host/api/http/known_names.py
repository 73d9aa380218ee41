"""Names that an address does not know, in a query or a body: refused, since dropping one does something else
than what was asked for.
"""

import difflib
from collections.abc import Collection

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from kohakuriver.host.api.http.auditing import READING
from kohakuriver.models.errors import InvalidInput

_EMPTY_OBJECT_BYTES = "2"
_OURS = ("/api/", "/ws/")
"""What is elsewhere are pages and probes, whose queries may be anybody's."""


def refuse_unknown_query(connection: HTTPConnection) -> None:
    """Raise InvalidInput for the first name in the query that the route does not declare."""
    if not connection.scope.get("query_string") or not connection.scope["path"].startswith(_OURS):
        return
    known = _declared(connection.scope["route"].dependant)
    for name in connection.query_params:
        if name not in known:
            raise InvalidInput(f"{name[:80]!r} in the query: {not_known(name, known)}", name[:80])


def refuse_unknown_body(connection: HTTPConnection) -> None:
    """Raise InvalidInput for a body where the route reads none, which would do less than was asked for.

    An empty object, which some clients always send, asks for nothing.
    """
    if connection.scope["type"] != "http" or connection.scope["method"] in READING:
        return
    if connection.headers.get("content-length", "0") in ("0", _EMPTY_OBJECT_BYTES):
        return
    dependant = connection.scope["route"].dependant
    reads_itself = dependant.request_param_name is not None
    if not reads_itself and not any(hasattr(inner.call, "model") for inner in dependant.dependencies):
        raise InvalidInput("this address takes no body; /docs lists what it takes")


def not_known(name: str, known: Collection[str]) -> str:
    """Say that there is no such name, and which one may be meant."""
    near = difflib.get_close_matches(name[:80], known, 1)
    if near:
        return f"there is no such name here; did you mean {near[0]!r}?"
    return f"there is no such name here; known are {', '.join(sorted(known)) or 'none'}"


def _declared(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_declared(inner) for inner in dependant.dependencies))
