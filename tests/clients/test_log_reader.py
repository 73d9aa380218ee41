"""Output of tasks arrives byte for byte through dropped connections and hosts that go away."""

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.client.host_client import HostClient
from kohakuriver.client.streams import logs
from kohakuriver.client.waiting import Patience
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import NotFound, Unavailable
from support.clients.stub_host import CUT, Answer, Request, Script, StubHost, stub_host, task_record

TASK = "310000000000004242"
PATH = f"/api/tasks/{TASK}/stdout"


@pytest.fixture
def client(host: StubHost) -> Iterator[HostClient]:
    with HostClient(host.access) as client:
        yield client


def quick(limit_seconds: float = 20) -> Patience:
    return Patience(limit_seconds, sleep=lambda seconds: None)


def begin_of(request: Request) -> int:
    return (
        int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        if "range" in request.headers
        else 0
    )


def pieces(data: bytes, cuts: Iterator[int], chunk: int, *, ranges: bool) -> Script:
    """A script that serves `data` and breaks off after as many bytes as `cuts` says, while it says any."""

    def script(request: Request) -> Answer:
        begin = begin_of(request) if ranges else 0
        if begin >= len(data) and begin:
            return Answer({"detail": "nothing there"}, 416)
        rest = data[begin:]
        allowed = next(cuts, None)
        sent = rest if allowed is None else rest[:allowed]
        body: list[object] = [sent[at : at + chunk] for at in range(0, len(sent), chunk)]
        if allowed is not None:
            body.append(CUT)
        return Answer(body or [b""], 206 if begin else 200)

    return script


@settings(max_examples=25, deadline=None)
@given(
    data=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 1500), max_size=5),
    chunk=st.integers(1, 900),
    ranges=st.booleans(),
)
def test_a_cut_stream_is_resumed_without_losing_or_repeating_a_byte(
    data: bytes, cuts: list[int], chunk: int, ranges: bool
) -> None:
    with stub_host() as host, HostClient(host.access) as client:
        host.answer("GET", f"/api/status/{TASK}", task_record(TASK))
        host.script("GET", PATH, pieces(data, iter(cuts), chunk, ranges=ranges))
        read = b"".join(client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick()))
        assert read == data


def test_a_followed_tail_is_resumed_where_its_lines_began(host: StubHost, client: HostClient) -> None:
    data = b"".join(b"line %d\n" % number for number in range(100))
    tail = data[-40:]

    def script(request: Request) -> Answer:
        if "lines" in request.query:
            return Answer([tail[:25], CUT], headers={"Kohakuriver-Offset": str(len(data) - 40)})
        return Answer([data[begin_of(request) :]], 206)

    host.script("GET", PATH, script)
    assert b"".join(client.logs.read(TASK, Stream.STDOUT, follow=True, lines=5, patience=quick())) == tail
    assert [request.query.get("lines") for request in host.calls("GET", PATH)] == ["5", None]


def test_a_tail_of_unknown_place_is_not_resumed_wrongly(host: StubHost, client: HostClient) -> None:
    host.script("GET", PATH, lambda request: Answer([b"some lines\n", CUT]))
    with pytest.raises(Unavailable, match="where these lines begin"):
        list(client.logs.read(TASK, Stream.STDOUT, follow=True, lines=1, patience=quick()))


def test_a_silent_connection_is_asked_for_again(
    host: StubHost, client: HostClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that died without a word must not hold a follower for ever."""
    calls = itertools.count()

    def script(request: Request) -> Answer:
        if next(calls):
            return Answer([b"after"], 206)
        return Answer(stalled())

    released = threading.Event()

    def stalled() -> Iterator[bytes]:
        yield b"before "
        released.wait(20)

    host.script("GET", PATH, script)
    monkeypatch.setattr(logs, "IDLE_SECONDS", 0.2)
    read = client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick())
    assert b"".join(read) == b"before after"
    released.set()
    assert host.calls("GET", PATH)[1].headers["range"] == "bytes=7-"


def test_a_host_that_answers_503_for_a_while_is_borne_with(host: StubHost, client: HostClient) -> None:
    answers = iter(
        [Answer([b"one ", CUT]), *[Answer({"detail": "starting"}, 503)] * 3, Answer([b"two"], 206)]
    )
    host.script("GET", PATH, lambda request: next(answers))
    assert b"".join(client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick())) == b"one two"


def test_patience_ends(host: StubHost, client: HostClient) -> None:
    answers = itertools.chain([Answer([b"one ", CUT])], itertools.repeat(Answer({"detail": "starting"}, 503)))
    host.script("GET", PATH, lambda request: next(answers))
    with pytest.raises(Unavailable, match="starting"):
        list(client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick(limit_seconds=0.2)))


def test_a_follower_past_the_end_of_a_running_task_waits_for_more(host: StubHost, client: HostClient) -> None:
    states = iter(["running", "completed"])
    host.script("GET", f"/api/status/{TASK}", lambda _: Answer(task_record(TASK, status=next(states))))
    answers = iter([Answer([b"abc", CUT]), Answer({}, 416), Answer({}, 416)])
    host.script("GET", PATH, lambda request: next(answers))
    assert b"".join(client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick())) == b"abc"


def test_output_of_an_unknown_task_is_an_error_at_once(client: HostClient) -> None:
    with pytest.raises(NotFound):
        list(client.logs.read(TASK, Stream.STDOUT, follow=True, patience=quick()))
