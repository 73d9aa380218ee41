"""All that a user, or a stranger, can send to the host's API: nothing of it may be the host's fault."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.host.api.http.bodies import JsonBody
from kohakuriver.wire.messages import EnrolRequest
from kohakuriver.wire.trust.signing import SCHEME
from support.host.api import ApiHarness, api_harness
from support.machine.looped import Looped
from support.messages.fuzz_settings import search
from support.messages.hostile_json import TEXTS, extremes, hostile, of_schema, of_type, written

UNREACHABLE = {502, 503}
"""A node that does not answer is nobody's mistake."""
_TEXTS = st.sampled_from(
    [text.encode().decode("unicode_escape", "replace") for text in TEXTS if len(text) < 2000]
)
_WORDS = (
    _TEXTS
    | st.text(max_size=30)
    | st.integers(-(1 << 70), 1 << 70).map(str)
    | st.sampled_from(["1", "n1", "base"])
)
_HELD = {"follow": "false", "wait": "0", "timeout": "0"}
"""Of what waits or goes on, only the kind that ends at once."""


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looped[ApiHarness]]:
    looped = Looped(api_harness(tmp_path_factory.mktemp("host")))
    looped.run(looped.inside.room.join("n1"))
    yield looped
    looped.close()


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def bodies_of(route: APIRoute) -> st.SearchStrategy[bytes]:
    models = [each.call.model for each in route.dependant.dependencies if isinstance(each.call, JsonBody)]
    if models:
        return hostile(of_schema(models[0].model_json_schema())) | extremes.map(written)
    return st.just(b"") | extremes.map(written)


@st.composite
def targets(draw: Any, route: APIRoute) -> str:
    path = route.path
    for name in route.param_convertors:
        path = path.replace("{" + name + "}", quoted(draw(_WORDS)) or "x")
    names = [each.alias for each in route.dependant.query_params]
    chosen = {name: draw(_WORDS) for name in names if draw(st.booleans())}
    chosen |= {name: value for name, value in _HELD.items() if name in names}
    return path + "?" + "&".join(f"{name}={quoted(value)}" for name, value in chosen.items())


async def check(harness: ApiHarness, answer: Any) -> None:
    place = (
        f"{answer.request.method} {str(answer.request.url)[:300]}: {answer.status_code} {answer.text[:300]}"
    )
    assert answer.status_code < 500 or answer.status_code in UNREACHABLE, place
    control = harness.room.control
    assert control.figures.counters.failed_commands == 0, place
    assert control.figures.counters.failed_commits == 0, place


@search
@given(data=st.data())
def test_no_request_of_a_user_is_the_hosts_fault(harness: Looped[ApiHarness], data: st.DataObject) -> None:
    routes = [route for route in harness.inside.app.routes if isinstance(route, APIRoute)]
    for _ in range(8):
        route = data.draw(st.sampled_from(routes))
        who = data.draw(st.sampled_from(["ursula", "otto", "ada"]))
        method = data.draw(st.sampled_from(sorted(route.methods or ())))
        target, body = data.draw(targets(route)), data.draw(bodies_of(route))
        headers = {"Content-Type": data.draw(st.sampled_from(["application/json", "text/plain", "a/b; c=é"]))}
        lines = _encoded({**headers, **harness.inside.credential(who)})
        answer = harness.run(raw_call(harness.inside, method, target, body, lines))
        harness.run(check(harness.inside, answer))


def _call_of(node: str, number: str = "7") -> str:
    """The credential of a node's call, as somebody makes it who does not have its key."""
    return f"{SCHEME} {node}:{'e' * 22}:{'s' * 22}:{number}:2:{'0' * 64}:{'0' * 64}"


HEADERS = ["Authorization", "Host", "Origin", "Content-Type", "Accept", "Range", "X-Forwarded-For", "Cookie"]
_VALUES = st.one_of(
    _WORDS,
    st.sampled_from(
        [
            "Bearer",
            "Bearer ",
            "Basic !",
            "KohakuRiver n1:a:b",
            f"KohakuRiver n1:{'a' * 24}:{'0' * 64}",
            _call_of("n1"),
            "null",
        ]
    ),
    _WORDS.map(lambda text: f"Bearer {text}"),
    _WORDS.map(_call_of),
    _WORDS.map(lambda text: _call_of("n1", text)),
)


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """What can stand in a header at all; servers refuse the rest before the application sees it."""
    lines = [
        (name, value.replace("\r", "").replace("\n", "").replace("\0", "")) for name, value in headers.items()
    ]
    return [(name.encode(), value.encode("utf-8", "surrogatepass")[:4000]) for name, value in lines]


@search
@given(data=st.data())
def test_no_request_of_a_stranger_is_the_hosts_fault(
    harness: Looped[ApiHarness], data: st.DataObject
) -> None:
    routes = [route for route in harness.inside.app.routes if isinstance(route, APIRoute)]
    for _ in range(4):
        headers = data.draw(st.dictionaries(st.sampled_from(HEADERS), _VALUES, max_size=4))
        route = data.draw(st.sampled_from(routes))
        body = data.draw(hostile(of_type(EnrolRequest)) | extremes.map(written))
        enrols = data.draw(st.booleans())
        target = "/api/enrol" if enrols else data.draw(targets(route))
        method = (
            "POST"
            if enrols
            else data.draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"]))
        )
        answer = harness.run(raw_call(harness.inside, method, target, body, _encoded(headers)))
        harness.run(check(harness.inside, answer))


async def raw_call(
    harness: ApiHarness, method: str, target: str, body: bytes, headers: list[tuple[bytes, bytes]]
) -> Any:
    transport = httpx2.ASGITransport(harness.app, raise_app_exceptions=False, client=("192.0.2.7", 5))
    async with httpx2.AsyncClient(transport=transport, base_url="http://host:8000") as client:
        return await client.request(method, target, headers=headers, content=body)
