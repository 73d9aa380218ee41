"""Pages of other sites whose name resolves to this host: the browser takes them for its own pages."""

from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from kohakuriver.host.api.http.own_names import OwnNames
from kohakuriver.host.api.permissions import declared_permissions
from support.host.api import ApiHarness, play
from support.messages.raw_http import ask, head, serving

FOREIGN = "evil.example:8000"
ANY_NAME = {"/healthz", "/readyz", "/api/enrol"}
PRIVILEGED = b'{"command": "true", "privileged": true}'


def submission(**headers: Any) -> bytes:
    length = {"Content_Type": "application/json", "Content_Length": len(PRIVILEGED)}
    return head("POST", "/api/submit", **length, **headers) + PRIVILEGED


def test_a_rebound_page_submits_nothing_where_authentication_is_off(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, _):
            for headers in (
                {"Host": FOREIGN},
                {"Host": FOREIGN, "Origin": f"http://{FOREIGN}"},
                {"Host": FOREIGN, "Authorization": "Bearer of-nothing"},
                {"Host": f"localhost.{FOREIGN}"},
                {"Host": "127.0.0.1.evil.example"},
                {"Host": "[::1]evil.example"},
                {"Host": "192.0.2.77"},
                {"Host": ""},
            ):
                assert await ask(address, submission(**headers)) == 421, headers
            twice = submission(Host="localhost").replace(b"\r\n", f"\r\nHost: {FOREIGN}\r\n".encode(), 1)
            assert await ask(address, twice) in (400, 421)
            none = submission(Host="localhost").replace(b"Host: localhost\r\n", b"")
            assert await ask(address, none) in (400, 421)
            assert (await harness.call(None, "GET", "/api/tasks")).json() == []
            assert await ask(address, submission(Host=address)) == 202

    play(tmp_path, scenario, auth_enabled=False)


@pytest.mark.parametrize("auth_enabled", [True, False])
def test_no_route_answers_a_rebound_page(tmp_path: Path, auth_enabled: bool) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, _):
            for method, path, permission in declared_permissions(harness.app):
                if method == "WS" or permission == "runner":
                    continue
                target = path.replace("{task_id}", "7").replace("{", "").replace("}", "")
                status = await ask(address, head(method, target, Host=FOREIGN, Content_Length=0))
                if path in ANY_NAME:
                    assert status != 421, path
                else:
                    assert status == 421, f"{method} {path}"

    play(tmp_path, scenario, auth_enabled=auth_enabled)


def test_no_websocket_opens_for_a_rebound_page(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, _):
            port = address.rpartition(":")[2]
            for _, path, _ in [each for each in declared_permissions(harness.app) if each[0] == "WS"]:
                target = path.format(task_id="7", name="base", port="8888")
                url = f"ws://evil.example:{port}{target}"
                with pytest.raises(InvalidStatus) as refused:
                    await connect(url, host="127.0.0.1", origin=f"http://evil.example:{port}", proxy=None)  # type: ignore[arg-type]
                assert refused.value.response.status_code == 421, path

    play(tmp_path, scenario, auth_enabled=False)


def test_with_a_token_any_name_and_any_origin_will_do(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with serving(harness.app) as (address, _):
            proxied = {
                "Host": "river.example",
                "Origin": "https://river.example",
                **harness.credential("otto"),
            }
            assert await ask(address, submission(**proxied)) == 202
            assert await ask(address, submission(Host=FOREIGN, Authorization="Bearer kr_" + "x" * 43)) == 401

    play(tmp_path, scenario)


def test_names_of_our_own_in_every_spelling(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        own = OwnNames(("0.0.0.0", "Head.Example.org"))
        monkey: Any = harness.app.state.parts
        object.__setattr__(monkey, "own_names", own)
        async with serving(harness.app) as (address, _):
            for name in (
                "localhost",
                "LOCALHOST.:8000",
                "127.0.0.1",
                "127.8.9.1:80",
                "[::1]:8000",
                "head.example.org",
                "HEAD.example.org.:8000",
            ):
                assert await ask(address, head("GET", "/api/nodes", Host=name)) == 200, name
            for name in ("0.0.0.0", "[::]", "head.example.org.evil.example", "example.org"):
                assert await ask(address, head("GET", "/api/nodes", Host=name)) == 421, name

    play(tmp_path, scenario, auth_enabled=False)
