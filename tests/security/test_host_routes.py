"""Every route of the host against every kind of caller, compared with what the route itself declares."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from kohakuriver.host.api import app as api_app
from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.permissions import declared_permissions
from kohakuriver.models.enums import Role
from kohakuriver.wire.trust import signing
from support.host.api import NAMES, ApiHarness, play

# The table that the routes must declare. A new route is added here on purpose, or this test fails.
PERMISSIONS = {
    "anony": """
        GET /, GET /docs, GET /openapi.json, GET /healthz, GET /readyz, GET /assets/overview.js,
        GET /assets/docs.js, GET /assets/style.css, GET /api/auth/status, GET /api/enrol, POST /api/enrol,
        POST /api/prove
    """,
    "viewer": """
        GET /metrics, GET /api/nodes, GET /api/health, GET /api/tasks, GET /api/tasks/resolve,
        GET /api/events,
        GET /api/status/{task_id}, GET /api/tasks/{task_id}/stdout, GET /api/tasks/{task_id}/stderr,
        GET /api/tasks/{task_id}/times,
        GET /api/auth/me, GET /api/auth/tokens, POST /api/auth/tokens/create,
        DELETE /api/auth/tokens/{token_id}, GET /api/vps, GET /api/vps/status, GET /api/vps/gateway,
        GET /api/vps/snapshots/{task_id}, GET /api/vps/snapshots/{task_id}/latest,
        GET /api/vps/my, GET /api/vps/vm-instances, GET /api/vm/images/{hostname}, GET /api/overlay/status,
        GET /api/overlay/ip/available, GET /api/overlay/ip/info/{runner}, GET /api/overlay/ip/reservations,
        GET /api/overlay/ip/stats
    """,
    "user": """
        POST /api/submit, GET /api/tasks/my, POST /api/kill/{task_id}, POST /api/command/{task_id}/pause,
        POST /api/command/{task_id}/resume, POST /api/vps/stop/{task_id}, POST /api/vps/restart/{task_id},
        DELETE /api/vps/{task_id}, POST /api/vps/snapshots/{task_id}, DELETE /api/vps/snapshots/{task_id},
        DELETE /api/vps/snapshots/{task_id}/{timestamp},
        POST /api/vps/snapshots/{task_id}/{timestamp}/restore,
        WS /ws/task/{task_id}/terminal, WS /ws/task/{task_id}/exec, WS /ws/task/{task_id}/stdin,
        GET /api/fs/{task_id}/list, GET /api/fs/{task_id}/read, GET /api/fs/{task_id}/stat,
        POST /api/fs/{task_id}/write, POST /api/fs/{task_id}/mkdir, POST /api/fs/{task_id}/rename,
        DELETE /api/fs/{task_id}/delete, GET /api/fs/{task_id}/archive, PUT /api/fs/{task_id}/archive,
        WS /ws/fs/{task_id}/watch, WS /ws/forward/{task_id}/{port}
    """,
    "operator": """
        GET /api/fs/container/{name}/list, GET /api/fs/container/{name}/read,
        GET /api/fs/container/{name}/stat, POST /api/fs/container/{name}/write,
        POST /api/fs/container/{name}/mkdir, POST /api/fs/container/{name}/rename,
        DELETE /api/fs/container/{name}/delete,
        POST /api/vps/create, GET /api/vps/{task_id}/assignments, POST /api/vps/{task_id}/assignments,
        DELETE /api/vps/{task_id}/assignments,
        GET /api/prune, POST /api/prune,
        POST /api/vps/{task_id}/assign, DELETE /api/vps/{task_id}/assign/{user_id},
        POST /api/overlay/ip/reserve, POST /api/overlay/ip/release, POST /api/overlay/ip/validate,
        GET /api/tasks/pending-approval, POST /api/approve/{task_id}, POST /api/reject/{task_id},
        GET /api/docker/host/containers, POST /api/docker/host/create, POST /api/docker/host/start/{name},
        POST /api/docker/host/stop/{name}, POST /api/docker/host/delete/{name},
        POST /api/docker/host/migrate/{name}, POST /api/docker/create_tar/{name},
        GET /api/docker/list, GET /api/docker/container/{name}, DELETE /api/docker/container/{name},
        GET /api/docker/registries, PUT /api/docker/registries, DELETE /api/docker/registries,
        WS /ws/docker/host/containers/{name}/terminal
    """,
    "admin": """
        POST /api/nodes/{hostname}/approve, GET /api/nodes/join-tokens, POST /api/nodes/join-tokens,
        DELETE /api/nodes/join-tokens/{token_id}, DELETE /api/nodes/{hostname},
        POST /api/nodes/{hostname}/reject,
        POST /api/nodes/{hostname}/drain, POST /api/nodes/{hostname}/undrain,
        POST /api/nodes/{hostname}/leftovers,
        POST /api/overlay/release/{runner}, POST /api/overlay/cleanup
    """,
    "runner": """
        POST /api/register, PUT /api/heartbeat/{hostname}, POST /api/update, POST /api/updates,
        POST /api/registry-credential
    """,
}
TABLE = {
    tuple(entry.split()): permission for permission, text in PERMISSIONS.items() for entry in text.split(",")
}
BODIES = {
    "/api/docker/host/create": {"image_name": "busybox", "container_name": "base"},
    "/api/docker/registries": {"registry": "lab.internal", "username": "ada", "password": "secret"},
}


def filled(path: str) -> str:
    queries = {
        "/api/tasks/resolve": "?ref=x",
        "/api/events": "?follow=false",
        "/api/docker/registries": "?registry=x.y",
    }
    values = {"task_id": "77", "hostname": "n1", "token_id": "none", "name": "base", "timestamp": "5"}
    values |= {"runner": "n1", "user_id": "1"}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path) + queries.get(path, "")


def test_the_routes_declare_exactly_this_table(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        declared = {
            (method, path): permission for method, path, permission in declared_permissions(harness.app)
        }
        assert declared == TABLE

    play(tmp_path, scenario)


def test_each_route_lets_in_whom_it_declares_and_nobody_else(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        callers: list[tuple[str | None, int]] = [(None, -1), *((who, role) for who, role in NAMES.items())]
        for (method, path), permission in TABLE.items():
            if method == "WS":
                continue
            for who, role in callers:
                answer = await harness.call(who, method, filled(path), json=BODIES.get(path, {}))
                place = f"{method} {path} by {who}: {answer.status_code} {answer.text[:200]}"
                if permission == "runner" or (permission != "anony" and who is None):
                    assert answer.status_code == 401, place
                elif permission != "anony" and role < Role[permission.upper()]:
                    assert answer.status_code == 403, place
                else:
                    assert answer.status_code not in (401, 403), place

    play(tmp_path, scenario)


def test_no_route_that_asks_for_somebody_takes_a_strangers_credential(tmp_path: Path) -> None:
    headers = [
        {"Authorization": "Bearer kr_" + "x" * 43},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {
            "Authorization": signing.sign(
                bytes(32), "n1", signing.Stamp("e" * 22, "s" * 22, 1), "GET", "/", b""
            )
        },
        {"Authorization": "KohakuRiver n1:"},
        {"Authorization": "\xff" * 100},
        {"Cookie": "session=1", "X-Admin-Secret": "", "X-Forwarded-For": "127.0.0.1"},
    ]

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        for (method, path), permission in TABLE.items():
            if permission == "anony" or method == "WS":
                continue
            for header in headers:
                raw = {name: value.encode("latin-1") for name, value in header.items()}
                answer = await harness.call(None, method, filled(path), json={}, headers=raw)
                assert answer.status_code == 401, f"{method} {path} with {header}"

    play(tmp_path, scenario)


def test_the_terminal_opens_for_operators_alone(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address:
            url = f"ws://{address}/ws/docker/host/containers/base/terminal"
            for who, status in ((None, 401), ("vera", 403), ("ursula", 403)):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(url, additional_headers=harness.credential(who), proxy=None)
                assert refused.value.response.status_code == status, who
            # Through a proxy it has another name; no page of another site can have the token.
            for origin in (None, "https://river.example"):
                headers = harness.credential("otto") | {"Host": "river.example"}
                async with connect(url, additional_headers=headers, origin=origin, proxy=None):  # type: ignore[arg-type]
                    pass

    play(tmp_path, scenario)


def test_the_terminal_opens_for_pages_of_the_same_origin_alone(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with harness.served() as address:
            url = f"ws://{address}/ws/docker/host/containers/base/terminal"
            for origin in ("https://evil.example", "null", f"http://sub.{address}"):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(url, origin=origin, proxy=None)  # type: ignore[arg-type]
                assert refused.value.response.status_code == 403, origin
            async with connect(url, origin=f"http://{address}", proxy=None):  # type: ignore[arg-type]
                pass

    play(tmp_path, scenario, auth_enabled=False)


def test_pages_of_other_sites_change_nothing_even_without_authentication(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit(None)  # type: ignore[arg-type]
        for origin in ("https://evil.example", "null", "http://host:8000.evil.example", "http://[bad"):
            answer = await harness.call(None, "POST", f"/api/kill/{task}", headers={"Origin": origin})
            assert answer.status_code == 403, origin
        own = {"Origin": "http://host:8000"}
        assert (await harness.call(None, "POST", f"/api/kill/{task}", headers=own)).status_code == 202

    play(tmp_path, scenario, auth_enabled=False)


async def _bare(request: Request) -> Response:
    return Response("open to all")


def test_an_app_with_a_route_that_declares_nothing_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = (*api_app.ENDPOINTS, Endpoint("GET", "/api/secret", _bare))

    async def scenario(harness: ApiHarness) -> None:
        monkeypatch.setattr(api_app, "ENDPOINTS", endpoints)
        with pytest.raises(RuntimeError, match="/api/secret"):
            api_app.build_api(harness.app.state.parts)

    play(tmp_path, scenario)


@pytest.mark.parametrize("kind", ["plain", "http", "websocket", "mounted", "included"])
def test_a_route_of_any_kind_without_a_permission_is_noticed(kind: str) -> None:
    app: Any = FastAPI(openapi_url=None)
    if kind == "plain":
        app.router.routes.append(Route("/x", _bare))
    elif kind == "http":
        app.router.routes.append(APIRoute("/x", _bare))
    elif kind == "websocket":
        app.add_api_websocket_route("/x", _bare)
    elif kind == "mounted":
        app.mount("/x", FastAPI())
    else:
        router = APIRouter()
        router.add_api_route("/x", _bare)
        app.include_router(router)
    with pytest.raises(RuntimeError, match="no permission"):
        declared_permissions(app)
