"""The short way to a handler: taken where it can be, and the same to whoever asks."""

from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from kohakuriver.host.api.app import ENDPOINTS
from kohakuriver.host.api.http.direct_routes import DirectRoute, plan_of


def the_route(path: str, method: str) -> APIRoute:
    endpoint = next(each for each in ENDPOINTS if (each.path, each.method) == (path, method))
    return APIRoute(endpoint.path, endpoint.handler, methods=[endpoint.method], response_model=None)


@pytest.mark.parametrize(
    ("method", "path", "parameters"),
    [
        ("POST", "/api/submit", ["call", "body"]),
        ("POST", "/api/updates", ["call"]),
        ("GET", "/api/nodes", ["call"]),
    ],
)
def test_what_is_asked_many_times_a_second_takes_the_short_way(
    method: str, path: str, parameters: list[str]
) -> None:
    plan = plan_of(the_route(path, method).dependant)
    assert [name for name, _ in plan or ()] == parameters


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/tasks"), ("GET", "/api/status/{task_id}"), ("POST", "/api/kill/{task_id}")],
)
def test_parameters_of_path_and_query_stay_with_the_library(method: str, path: str) -> None:
    assert plan_of(the_route(path, method).dependant) is None


@pytest.fixture
def client() -> TestClient:
    async def plain(request: Request) -> Response:
        return Response(request.url.path + request.scope["route"].path)

    async def named(name: str) -> Response:
        return Response(f"named {name}")

    async def other(request: Request) -> Response:
        return Response("the other method")

    app = FastAPI(redirect_slashes=False)
    app.router.route_class = DirectRoute
    handlers: list[tuple[str, str, Any]] = [
        ("GET", "/a", plain),
        ("POST", "/a", other),
        ("GET", "/a/{name}", named),
    ]
    for method, path, handler in handlers:
        app.add_api_route(path, handler, methods=[method], response_model=None)
    return TestClient(app)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/a", 200, "/a/a"),
        ("POST", "/a", 200, "the other method"),
        ("PUT", "/a", 405, None),
        ("GET", "/a/", 404, None),
        ("GET", "/A", 404, None),
        ("GET", "/a/x", 200, "named x"),
        ("GET", "/a/x/y", 404, None),
        ("GET", "/%61", 200, "/a/a"),
    ],
)
def test_an_address_is_found_as_the_library_finds_it(
    client: TestClient, method: str, path: str, status: int, body: str | None
) -> None:
    answered = client.request(method, path)
    assert answered.status_code == status
    assert body is None or answered.text == body
