"""Counts of requests by route and status. Labels are routes as declared, never what was asked for."""

from collections import Counter

from starlette.types import Scope

from kohakuriver.host.durations import Durations

UNKNOWN_ROUTE = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestFigures:
    """`count`: by (method, route, status). `seconds`: until the answer began, by route.

    Bounded: methods that nobody knows count as one, and so do addresses that no route has.
    """

    def __init__(self) -> None:
        self.count: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Durations] = {}
        self.open = 0

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.count[method, route, status] += 1
        durations = self.seconds.get(route)
        if durations is None:
            durations = self.seconds[route] = Durations()
        durations.add(seconds)
