"""Routes that take the short way to their handlers: what is asked many times a second.

FastAPI finds out anew with each request what a handler's parameters are made of. Where these are nothing but
the request and our own dependencies, which ask for nothing but the request, that is known when the route is
made, and costs more than all else that such a handler does. Every other route is FastAPI's.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope

from kohakuriver.host.api.http.bodies import JsonBody
from kohakuriver.host.api.permissions import Requires, RunnerOnly

Dependency = Requires | RunnerOnly | JsonBody[Any]


class DirectRoute(APIRoute):
    """Set it as the `route_class` of an app's own router."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The short way if there is one; see `APIRoute`."""
        plan = plan_of(self.dependant)
        if plan is None:
            return super().get_route_handler()
        endpoint, request_name = self.endpoint, self.dependant.request_param_name

        async def handle(request: Request) -> Response:
            values = {name: await dependency(request) for name, dependency in plan}
            if request_name is not None:
                values[request_name] = request
            answer: Response = await endpoint(**values)
            return answer

        return handle

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, cheap for what does not match: one route after the other is asked."""
        if not self.param_convertors and scope["path"] != self.path:
            return Match.NONE, {}
        match, child_scope = Route.matches(self, scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope


def plan_of(dependant: Dependant) -> list[tuple[str, Dependency]] | None:
    """Say what makes each parameter, in order, the request itself apart; None: FastAPI has to see to that."""
    if _takes_parts_of_a_request(dependant):
        return None
    plan: list[tuple[str, Dependency]] = []
    for part in dependant.dependencies:
        if part.name is None or not isinstance(part.call, (Requires, RunnerOnly, JsonBody)):
            return None
        plan.append((part.name, part.call))
    return plan


def _takes_parts_of_a_request(dependant: Dependant) -> bool:
    return bool(
        dependant.path_params
        or dependant.query_params
        or dependant.header_params
        or dependant.cookie_params
        or dependant.body_params
        or dependant.http_connection_param_name
        or dependant.response_param_name
        or dependant.background_tasks_param_name
    )
