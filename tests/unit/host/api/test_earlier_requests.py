"""What earlier clients send is taken, or refused with a sentence, and never dropped in silence."""

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel, RootModel

from kohakuriver.host.api.app import ENDPOINTS
from kohakuriver.host.api.http.bodies import JsonBody
from kohakuriver.wire.messages import NumaInfo
from support.host.api import ApiHarness, play


@pytest.mark.parametrize(
    ("body", "ran"),
    [
        ({"command": "echo hello  world"}, ("echo", ["hello", "world"])),
        ({"command": "echo hello | wc -c"}, ("/bin/sh", ["-c", "echo hello | wc -c"])),
        ({"command": "python -c 'print(1)'"}, ("/bin/sh", ["-c", "python -c 'print(1)'"])),
        ({"command": "A=1 env"}, ("/bin/sh", ["-c", "A=1 env"])),
        ({"command": "ls ~"}, ("/bin/sh", ["-c", "ls ~"])),
        ({"command": "env --unset=A make x=1"}, ("env", ["--unset=A", "make", "x=1"])),
        ({"command": "echo a\nls"}, ("/bin/sh", ["-c", "echo a\nls"])),
        ({"command": "a b", "arguments": []}, ("a", ["b"])),
        ({"command": "/opt/a b", "arguments": ["$HOME"]}, ("/opt/a b", ["$HOME"])),
        ({"command": "a|b"}, ("a|b", [])),
    ],
)
def test_a_command_line_in_one_text_is_run_as_one(
    tmp_path: Path, body: dict[str, Any], ran: tuple[str, list[str]]
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit(**body)
        shown = (await harness.call("otto", "GET", f"/api/status/{task}")).json()
        assert (shown["command"], shown["arguments"]) == ran

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"command": "   "}, "command", "blank"),
        ({"command": "true", "container_name": "NULL"}, "container_name", "never on the node itself"),
        ({"command": "true", "target_numa_node_id": 1}, "target_numa_node_id", "target"),
        ({"command": "true", "targets": ["n1:0"], "target_numa_node_id": 1}, "target_numa_node_id", "n1:0"),
    ],
)
def test_what_cannot_be_run_as_asked_is_refused(
    tmp_path: Path, body: dict[str, Any], field: str, told: str
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("otto", "POST", "/api/submit", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert told in answer.json()["detail"]

    play(tmp_path, scenario)


def test_a_limit_beyond_the_most_gives_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kohakuriver.host.api.tasks.routes.MOST_LISTED", 2)

    async def scenario(harness: ApiHarness) -> None:
        for _ in range(3):
            await harness.submit()
        for limit, most in ((10_000, 2), (2, 2), (1, 1)):
            listed = (await harness.call("vera", "GET", f"/api/tasks?limit={limit}")).json()
            assert len(listed) == most

    play(tmp_path, scenario)


def test_the_numa_node_of_a_field_counts_for_targets_that_name_none(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", numa_topology=[NumaInfo(id=1, cpus=[0], memory_bytes=1 << 30)])
        task = await harness.submit(targets=["n1"], target_numa_node_id=1)
        shown = (await harness.call("otto", "GET", f"/api/status/{task}")).json()
        assert (shown["target"], shown["target_numa_node_id"]) == ("n1:1", 1)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "options", "field"),
    [
        ("POST", "/api/submit", {"json": {"command": "true", "targetz": ["n1"]}}, "targetz"),
        ("POST", "/api/vps/create", {"json": {"nam": "x"}}, "nam"),
        ("POST", "/api/auth/tokens/create", {"json": {"name": "x", "scope": "all"}}, "scope"),
        (
            "POST",
            "/api/docker/host/create",
            {"json": {"image_name": "a", "container_name": "b", "x": 1}},
            "x",
        ),
        ("POST", "/api/fs/1/mkdir", {"json": {"path": "/a", "parent": True}}, "parent"),
        ("GET", "/api/tasks?statuz=running", {}, "statuz"),
        ("GET", "/api/nodes?x=", {}, "x"),
        ("POST", "/api/kill/1?force=true", {}, "force"),
        ("GET", "/api/auth/status?x=1", {}, "x"),
        ("GET", "/api/fs/1/list?path=/&hidden=false", {}, "hidden"),
    ],
)
def test_names_that_nobody_knows_are_refused_and_not_dropped(
    tmp_path: Path, method: str, path: str, options: dict[str, Any], field: str
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("ada", method, path, **options)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert "there is no such name here" in answer.json()["detail"]
        assert (await harness.call("ada", "GET", "/api/tasks")).json() == []

    play(tmp_path, scenario)


def test_every_route_refuses_a_query_that_it_does_not_know(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        paths = (await harness.call(None, "GET", "/openapi.json")).json()["paths"]
        tried = 0
        for path, methods in paths.items():
            if not path.startswith("/api/"):
                continue
            for method, operation in methods.items():
                if operation.get("security") == [{"runner": []}]:
                    continue
                concrete = path
                for name in ("task_id", "timestamp", "user_id", "token_id"):
                    concrete = concrete.replace(f"{{{name}}}", "1")
                for name in ("name", "hostname", "runner"):
                    concrete = concrete.replace(f"{{{name}}}", "n1")
                answer = await harness.call("ada", method.upper(), f"{concrete}?never_heard_of=1")
                assert (answer.status_code, answer.json()["field"]) == (422, "never_heard_of"), (method, path)
                tried += 1
        assert tried > 70

    play(tmp_path, scenario)


def test_every_body_forbids_what_it_does_not_know() -> None:
    models = {model for endpoint in ENDPOINTS for model in _body_models(endpoint.handler)}
    assert len(models) > 10
    assert [model for model in models if not _refuses_unknown(model)] == []


def _body_models(handler: Any) -> list[type[BaseModel]]:
    hints = get_type_hints(handler, include_extras=True).values()
    used = [getattr(part, "dependency", None) for hint in hints for part in getattr(hint, "__metadata__", ())]
    return [body.model for body in used if isinstance(body, JsonBody)]


def _refuses_unknown(model: type[BaseModel]) -> bool:
    return issubclass(model, RootModel) or model.model_config.get("extra") == "forbid"


def test_a_body_where_none_is_read_is_refused(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit()
        refused = await harness.call("otto", "POST", f"/api/kill/{task}", json={"gently": True})
        assert (refused.status_code, "takes no body" in refused.json()["detail"]) == (422, True)
        shown = (await harness.call("otto", "GET", f"/api/status/{task}")).json()
        assert shown["status"] == "pending"
        assert (await harness.call("otto", "POST", f"/api/kill/{task}", json={})).status_code == 202

    play(tmp_path, scenario)


def test_a_nearly_right_name_is_answered_with_the_right_one(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("ada", "GET", "/api/tasks?ofset=3")
        assert "'offset'" in answer.json()["detail"]
        answer = await harness.call("ada", "POST", "/api/submit", json={"command": "x", "required_core": 1})
        assert "'required_cores'" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_probes_and_pages_bear_queries_of_others(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for path in ("/healthz?probe=1", "/readyz?probe=1", "/?x=1", "/metrics?x=1"):
            assert (await harness.call("ada", "GET", path)).status_code in (200, 503)

    play(tmp_path, scenario)
