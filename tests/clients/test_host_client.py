"""Calls of the client: what is sent, what the answers become, and where nothing may be sent."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kohakuriver.client.errors import AnswerNotUnderstood, HostUnreachable
from kohakuriver.client.host_client import HostClient
from kohakuriver.client.records import Submission
from kohakuriver.client.waiting import Patience, watch_task
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from support.clients.stub_host import Answer, StubHost, task_record


@pytest.fixture
def client(host: StubHost) -> Iterator[HostClient]:
    with HostClient(host.access_with("secret-token")) as client:
        yield client


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (403, Denied),
        (404, NotFound),
        (409, Conflict),
        (413, TooLarge),
        (422, InvalidInput),
        (500, KohakuRiverError),
        (502, EngineFault),
        (503, Unavailable),
    ],
)
def test_a_refusal_becomes_the_error_of_its_status(
    host: StubHost, client: HostClient, status: int, kind: type[KohakuRiverError]
) -> None:
    host.answer("GET", "/api/nodes", {"detail": "a sentence", "field": "cores"}, status)
    with pytest.raises(kind, match="a sentence") as caught:
        client.nodes.all()
    assert type(caught.value) is kind
    assert getattr(caught.value, "field", "cores") == "cores"


def test_a_list_of_faults_is_told_with_the_place_of_each(host: StubHost, client: HostClient) -> None:
    detail = [{"loc": ["body", "required_cores"], "msg": "must be positive"}, {"loc": [], "msg": "too much"}]
    host.answer("GET", "/api/nodes", {"detail": detail}, 422)
    with pytest.raises(InvalidInput, match="required_cores: must be positive; too much"):
        client.nodes.all()


def test_what_is_not_from_a_host_is_not_understood(host: StubHost, client: HostClient) -> None:
    host.script("GET", "/api/nodes", lambda request: Answer(b"<html>a router's page</html>"))
    with pytest.raises(AnswerNotUnderstood):
        client.nodes.all()


def test_nobody_at_the_address_is_host_unreachable(host: StubHost) -> None:
    host.close()
    with HostClient(host.access) as client, pytest.raises(HostUnreachable, match="kohakuriver up"):
        client.nodes.all()


def test_fields_of_a_newer_host_are_kept_in_the_raw_answer(host: StubHost, client: HostClient) -> None:
    record = task_record()
    host.answer("GET", "/api/tasks", [record])
    reply = client.tasks.page()
    assert reply.value[0].status is TaskState.COMPLETED
    assert reply.raw == [record]


def test_a_submission_leaves_to_the_host_what_was_not_given(host: StubHost, client: HostClient) -> None:
    host.answer("POST", "/api/submit", {"message": "", "task_ids": ["1"]}, 202)
    client.tasks.submit(Submission(command="true", required_cores=0))
    assert host.requests[-1].json == {"command": "true", "required_cores": 0}


def test_names_cannot_reach_another_path(host: StubHost, client: HostClient) -> None:
    with pytest.raises(NotFound):
        client.environments.start_container("../../api/kill/1?x=")
    assert host.requests[-1].path == "/api/docker/host/start/..%2F..%2Fapi%2Fkill%2F1%3Fx%3D"


def test_the_token_does_not_follow_a_redirect(client: HostClient, host: StubHost) -> None:
    caught: list[str | None] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            caught.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        target = f"http://127.0.0.1:{server.server_address[1]}/api/nodes"
        host.script("GET", "/api/nodes", lambda request: Answer({}, 307, {"Location": target}))
        with pytest.raises(KohakuRiverError):
            client.nodes.all()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert caught == []


@pytest.mark.parametrize("odd", ["a?b", "a#b", "a b", "a\r\nX-Evil: 1", "ä\u202e", "100%", "a/../b"])
def test_no_id_or_value_leaves_its_place_in_the_address(host: StubHost, client: HostClient, odd: str) -> None:
    with pytest.raises(NotFound):
        client.tasks.status(odd)
    with pytest.raises(NotFound):
        client.tasks.reject("7", reason=odd)
    status, reject = host.requests[-2:]
    assert status.path.startswith("/api/status/")
    assert (reject.path, reject.query) == ("/api/reject/7", {"reason": odd})
    for request in (status, reject):
        assert "x-evil" not in {name.lower() for name in request.headers}


def test_proxy_settings_are_not_used(host: StubHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    host.answer("GET", "/api/nodes", [])
    with HostClient(host.access) as client:
        assert client.nodes.all().raw == []


def test_a_wait_outlives_an_outage_of_the_host(host: StubHost, client: HostClient) -> None:
    running, ended = task_record(status="running"), task_record(status="completed")
    answers = iter([Answer(running), Answer({"detail": "restarting"}, 503), Answer(running), Answer(ended)])
    host.script("GET", f"/api/status/{running['task_id']}", lambda request: next(answers))
    patience = Patience(20, sleep=lambda seconds: None)
    states = [reply.value.status for reply in watch_task(client.tasks, running["task_id"], patience=patience)]
    assert states == [TaskState.RUNNING, TaskState.RUNNING, TaskState.COMPLETED]
