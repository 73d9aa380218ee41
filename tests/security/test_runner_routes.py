"""The runner's API: every declared route and every other path, for everyone who is not its host."""

import asyncio
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kohakuriver.files.records import MAX_WRITE_REQUEST_BYTES
from kohakuriver.models.errors import Unauthenticated, Unavailable
from kohakuriver.runner.api.host_credential import MAX_BODY_BYTES
from kohakuriver.runner.api.routes import declared_routes, runner_api
from kohakuriver.runner.api.services import Permission, RunnerServices
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.leftovers import LeftoverParts, LeftoverService
from kohakuriver.runner.vps_service import VpsService, VpsServiceParts
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.leftovers import RemovalRequest
from kohakuriver.wire.messages import Order, OrderAnswer, encode
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import Caller, SealedCall
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential, sign
from support.messages.asgi_call import NOT_TO_BE_READ, Answer, Body, NeverComing, call

HOST, NODE, OTHER = Identity.generate(), Identity.generate(), Identity.generate()
KEYS = HOST.link_keys(NODE.public_key, Side.HOST)
OTHERS_KEYS = HOST.link_keys(OTHER.public_key, Side.HOST)
ROUTES = [(route.method, route.path) for route in declared_routes()]
FIELDS = {
    "name": "base",
    "task_id": "7",
    "stream": "stdout",
    "timestamp": "1700000000",
    "container": "kohakuriver-vps-7",
    "port": "22",
}
STREAMS = (
    "/ws/task/{task_id}/terminal",
    "/ws/task/{task_id}/stdin",
    "/ws/forward/{container}/{port}",
    "/ws/forward/{container}",
    "/ws/fs/{task_id}/watch",
    "/ws/fs/{task_id}/archive",
)
UNDECLARED = [
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("PUT", "/api/orders"),
    ("POST", "/api/x"),
]


class RunnerApi:
    """The API over services that record what reaches them."""

    def __init__(self, folder: Path = Path("/nonexistent"), keys: LinkKeys | None = KEYS) -> None:
        self.reached: list[str] = []
        self.refusal: str | None = None
        self.faults: list[str] = []
        self.caller = Caller(Side.HOST)
        self.app = runner_api(
            RunnerServices(
                node="n1",
                keys=lambda: keys,
                take_orders=self._take_orders,
                list_images=self._images,
                sync_environment=self._sync,
                remove_environment=self._sync,
                faults=lambda: self.faults,
                local_temp_dir=folder,
                leftovers=self._leftovers(),
                vps=VpsService(
                    VpsServiceParts(self._engine, self._engine, lambda _: None, set, 3, lambda: None, folder)
                ),
                engine_of=self._engine,
                streams=dict.fromkeys(STREAMS, self._stream),
            )
        )

    async def _take_orders(self, orders: list[Order]) -> list[OrderAnswer]:
        self.reached.extend(f"{order.kind.value} {order.task_id}" for order in orders)
        accepted = self.refusal is None
        return [OrderAnswer(order_id=o.order_id, accepted=accepted, detail=self.refusal) for o in orders]

    def _engine(self, *_: object) -> NoReturn:
        self.reached.append("engine")
        raise Unavailable("there is no engine")

    async def _stream(self, call: StreamCall, channel: Channel) -> None:
        self.reached.append(f"stream {dict(call.path)}")

    def _leftovers(self) -> LeftoverService:
        vps = VpsService(
            VpsServiceParts(
                self._engine, self._engine, lambda _: None, set, 3, lambda: None, Path("/nonexistent")
            )
        )
        place = Path("/nonexistent")
        return LeftoverService(
            LeftoverParts(vps, set, lambda: None, place, self._sweep_images, self._oldest_workload)
        )

    async def _sweep_images(self, _request: RemovalRequest) -> tuple[int, int]:
        self.reached.append("sweep of images")
        return 0, 0

    async def _oldest_workload(self) -> float | None:
        self.reached.append("oldest workload")
        return None

    async def _images(self) -> list[str]:
        self.reached.append("images")
        return []

    async def _sync(self, name: str) -> None:
        self.reached.append(f"sync {name}")
        if name == "broken":
            raise ZeroDivisionError

    def ask(self, method: str, target: str, body: Body = b"", credential: str | None = None) -> Answer:
        headers = {} if credential is None else {"Authorization": credential}
        return asyncio.run(call(self.app, method, target, headers, body))

    def as_host(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Call as our host does, and give the answer opened."""
        for _ in range(2):
            sealed = self.caller.call("n1", KEYS, method, target, body)
            answer = self.ask(method, target, sealed.content, sealed.credential)
            proven = self.caller.prove(sealed, KEYS, answer.status, answer.headers, 1 << 30)
            if not self.caller.must_call_again(sealed, proven):
                break
        return Answer(answer.status, answer.headers, self.caller.open(sealed, proven, answer.body))

    def sealed(self, method: str, target: str, body: bytes = b"") -> SealedCall:
        """A call as our host makes it, in the epoch of this runner."""
        assert self.as_host("GET", "/healthz").status == 200
        return self.caller.call("n1", KEYS, method, target, body)


def _wrong_credentials(api: RunnerApi, method: str, target: str, body: bytes) -> list[str | None]:
    good = api.sealed(method, target, body).credential
    stamp = read_credential(good).stamp

    def signed(key: bytes, node: str, target: str, content: bytes) -> str:
        return sign(key, node, stamp, method, target, content)

    return [
        None,
        "",
        "Bearer " + "a" * 43,
        "Basic YTpi",
        "KohakuRiver2 n1",
        "KohakuRiver n1:" + "a" * 24 + ":" + "0" * 64,
        good.replace("KohakuRiver2", "KohakuRiver"),
        good.replace("KohakuRiver2", "KohakuRiver3"),
        good.replace("n1", "n2"),
        good[:-1],
        good + "0",
        good.lower(),
        signed(KEYS.node_to_host, "n1", target, body),
        signed(OTHERS_KEYS.host_to_node, "n1", target, body),
        signed(OTHERS_KEYS.host_to_node, "other", target, body),
        signed(KEYS.host_to_node, "n1", target + "?x=1", body),
        signed(b"", "n1", target, body),
    ]


@pytest.mark.parametrize(("method", "path"), ROUTES + UNDECLARED)
def test_every_path_is_401_for_everyone_but_the_host(method: str, path: str) -> None:
    api = RunnerApi()
    target = path.format_map(FIELDS)
    for credential in _wrong_credentials(api, method, target, b"{}"):
        answer = api.ask(method, target, b"{}", credential)
        assert answer.status == 401, credential
        assert ANSWER_HEADER.lower() not in answer.headers
        assert "detail" in answer.json
    assert api.reached == []


def test_before_enrolment_nobody_gets_in() -> None:
    api = RunnerApi(keys=None)
    for method, path in ROUTES:
        credential = api.caller.call("n1", KEYS, method, path).credential
        answer = api.ask(method, path, b"", credential)
        assert (answer.status, ANSWER_HEADER.lower() in answer.headers) == (401, False)


@pytest.mark.parametrize("path", [*STREAMS, "/ws/none"])
def test_every_stream_is_refused_to_everyone_but_the_host(path: str) -> None:
    api, target = RunnerApi(), path.format_map(FIELDS)
    for credential in _wrong_credentials(api, "GET", target, b""):
        headers = {} if credential is None else {"Authorization": credential}
        assert asyncio.run(call(api.app, "GET", target, headers, kind="websocket")).status == 403, credential
    assert api.reached == []


def test_every_route_declares_its_permission() -> None:
    assert all(route.permission is Permission.HOST for route in declared_routes())
    assert len(set(ROUTES)) == len(ROUTES)


def test_the_answer_belongs_to_the_request() -> None:
    api = RunnerApi()
    call, other = api.sealed("GET", "/healthz"), api.sealed("GET", "/healthz")
    answer = api.ask("GET", "/healthz", b"", call.credential)
    api.caller.prove(call, KEYS, answer.status, answer.headers, 1000)
    with pytest.raises(Unauthenticated):
        api.caller.prove(other, KEYS, answer.status, answer.headers, 1000)


def test_orders_reach_the_agent_in_both_forms() -> None:
    api = RunnerApi()
    orders: list[dict[str, Any]] = [
        {"kind": "kill", "task_id": "7", "order_id": 3},
        {"kind": "execute", "task_id": 8},
    ]
    answer = api.as_host("POST", "/api/orders", encode(orders))
    assert answer.status == 200
    assert [each["order_id"] for each in answer.json] == [3, 0]
    for kind in ("execute", "kill", "pause", "resume"):
        assert api.as_host("POST", f"/api/{kind}", encode({"task_id": 9, "command": "x"})).status == 200
    assert api.reached == ["kill 7", "execute 8", "execute 9", "kill 9", "pause 9", "resume 9"]


def test_a_refused_single_order_is_422_with_the_sentence() -> None:
    api = RunnerApi()
    api.refusal = "this node has no GPU 9; it has none"
    answer = api.as_host("POST", "/api/execute", encode({"task_id": "1", "command": "x"}))
    assert (answer.status, answer.json["detail"]) == (422, api.refusal)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]x",
        b"\xff\xfe",
        b"{}",
        b'[{"kind": "dance", "task_id": "1"}]',
        b'[{"kind": "kill"}]',
        b"[1]",
    ],
)
def test_bodies_that_do_not_fit_are_422(body: bytes) -> None:
    api = RunnerApi()
    answer = api.as_host("POST", "/api/orders", body)
    assert answer.status == 422
    assert answer.json["detail"]
    assert api.reached == []


def test_a_single_order_of_the_wrong_shape_is_422() -> None:
    for body in (b"[]", b"7", b'{"task_id": []}', b'{"task_id": "1", "required_cores": -1}'):
        assert RunnerApi().as_host("POST", "/api/execute", body).status == 422


def test_too_large_a_body_is_413_proven_and_not_read() -> None:
    api = RunnerApi()
    call = api.sealed("POST", "/api/orders", b"x" * (MAX_BODY_BYTES + 1))
    answer = api.ask("POST", "/api/orders", NOT_TO_BE_READ, call.credential)
    proven = api.caller.prove(call, KEYS, answer.status, answer.headers, 1000)
    assert answer.status == 413
    assert b"bytes at most" in api.caller.open(call, proven, answer.body)


def test_a_files_content_may_be_larger_and_no_other_body() -> None:
    api = RunnerApi()
    body = encode({"path": "/x", "content": "x" * (MAX_BODY_BYTES + 1)})
    assert api.as_host("POST", "/api/fs/7/write", body).status == 503  # it came to the engine, which is down
    for target in ("/api/fs/7/mkdir", "/api/fs/7/write/", "/api/fs/x/write"):
        assert api.as_host("POST", target, body).status == 413
    body = bytes(MAX_WRITE_REQUEST_BYTES + 1)
    assert api.as_host("POST", "/api/fs/7/write", body).status == 413


@pytest.mark.parametrize("target", ["/api/orders", "/api/fs/7/write"])
def test_no_body_of_a_stranger_is_read(target: str) -> None:
    api = RunnerApi()
    for credential in _wrong_credentials(api, "POST", target, b"{}"):
        assert api.ask("POST", target, NOT_TO_BE_READ, credential).status == 401, credential


def test_strangers_who_write_files_hold_up_nobody() -> None:
    """Four requests whose bodies never come: what our host writes meanwhile gets through."""

    async def scenario() -> None:
        api, ended = RunnerApi(), asyncio.Event()
        assert (await asyncio.to_thread(api.as_host, "GET", "/healthz")).status == 200
        body = encode({"path": "/x", "content": "x" * (MAX_BODY_BYTES + 1)})
        write = api.caller.call("n1", KEYS, "POST", "/api/fs/7/write", body)
        stranger = {"Authorization": write.credential[:-1] + "g", "Content-Length": str(len(write.content))}
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(call(api.app, "POST", "/api/fs/7/write", stranger, NeverComing(ended)))
                for _ in range(4)
            ]
            mine = await call(
                api.app, "POST", "/api/fs/7/write", {"Authorization": write.credential}, write.content
            )
            assert mine.status == 503  # it came to the engine, which is down
            ended.set()
            assert [(await each).status for each in waiting] == [401] * 4

    asyncio.run(scenario())


def test_a_body_other_than_the_proven_one_is_refused() -> None:
    api = RunnerApi()
    orders = encode([{"kind": "kill", "task_id": "7"}])
    for change in (
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"0",
        lambda sealed: b"",
        lambda sealed: bytes(len(sealed)),
        lambda _sealed: orders,
    ):
        sealed = api.sealed("POST", "/api/orders", orders)
        answer = api.ask("POST", "/api/orders", change(sealed.content), sealed.credential)
        assert answer.status == 401
        api.caller.prove(sealed, KEYS, answer.status, answer.headers, 1000)
    assert api.reached == []


def test_unknown_paths_and_methods_are_404_and_405_for_the_host() -> None:
    assert RunnerApi().as_host("GET", "/api/none").status == 404
    assert RunnerApi().as_host("GET", "/api/orders").status == 405


def test_environment_names_are_checked_and_defects_are_500_without_detail() -> None:
    api = RunnerApi()
    assert api.as_host("POST", "/api/docker/sync/base").status == 200
    assert api.as_host("POST", "/api/docker/sync/--privileged").status == 422
    answer = api.as_host("POST", "/api/docker/sync/broken")
    assert (answer.status, "see its log" in answer.json["detail"]) == (500, True)
    assert api.reached == ["sync base", "sync broken"]


def test_readyz_names_what_does_not_work() -> None:
    api = RunnerApi()
    assert api.as_host("GET", "/readyz").status == 200
    api.faults = ["the disk is full"]
    answer = api.as_host("GET", "/readyz")
    assert (answer.status, answer.json["faults"][0]["message"]) == (503, "the disk is full")
    assert api.as_host("GET", "/healthz").json == {"status": "ok"}


def _with_output(folder: Path, content: bytes = b"0123456789") -> Path:
    logs = folder / "logs" / "7"
    logs.mkdir(parents=True)
    (logs / "stdout.log").write_bytes(content)
    return logs


def test_output_is_read_by_range_with_its_size(tmp_path: Path) -> None:
    _with_output(tmp_path)
    api = RunnerApi(tmp_path)
    answer = api.as_host("GET", "/api/logs/7/stdout?offset=3&length=4")
    assert (answer.body, answer.headers["x-log-size"]) == (b"3456", "10")
    assert api.as_host("GET", "/api/logs/7/stdout?offset=100").body == b""
    assert api.as_host("GET", "/api/logs/7/stdout").body == b"0123456789"


def test_times_of_output_are_read_as_output_is(tmp_path: Path) -> None:
    logs = _with_output(tmp_path)
    (logs / "output.times").write_bytes(b"\x01abc")
    api = RunnerApi(tmp_path)
    answer = api.as_host("GET", "/api/logs/7/times?offset=1")
    assert (answer.body, answer.headers["x-log-size"]) == (b"abc", "4")
    (logs / "output.times").unlink()
    (logs / "output.times").symlink_to(logs / "stdout.log")
    assert api.as_host("GET", "/api/logs/7/times").status == 404


def test_output_of_a_later_attempt_is_read_from_a_folder_of_its_own(tmp_path: Path) -> None:
    later = _with_output(tmp_path) / "attempt-2"
    later.mkdir()
    (later / "stdout.log").write_bytes(b"second")
    api = RunnerApi(tmp_path)
    assert api.as_host("GET", "/api/logs/7/stdout?attempt=1").body == b"0123456789"
    assert api.as_host("GET", "/api/logs/7/stdout?attempt=2").body == b"second"
    assert api.as_host("GET", "/api/logs/7/stdout?attempt=3").status == 404
    assert api.as_host("GET", "/api/logs/7/stdout?attempt=../8").status == 422


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/logs/7/stderr", 404),
        ("/api/logs/8/stdout", 404),
        ("/api/logs/7/other", 404),
        ("/api/logs/..%2f7/stdout", 422),
        ("/api/logs/x/stdout", 422),
        ("/api/logs/-7/stdout", 422),
        ("/api/logs/7/stdout?offset=-1", 422),
        ("/api/logs/7/stdout?length=x", 422),
        ("/api/logs/7/stdout?offset=99999999999999999999", 422),
    ],
)
def test_output_that_is_not_there_or_asked_for_wrongly(tmp_path: Path, target: str, status: int) -> None:
    _with_output(tmp_path)
    assert RunnerApi(tmp_path).as_host("GET", target).status == status


def test_output_is_never_read_through_a_link_or_a_pipe(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    logs = _with_output(tmp_path / "a")
    (logs / "stdout.log").unlink()
    (logs / "stdout.log").symlink_to(secret)
    os.mkfifo(logs / "stderr.log")
    api = RunnerApi(tmp_path / "a")
    assert api.as_host("GET", "/api/logs/7/stdout").status == 404
    assert api.as_host("GET", "/api/logs/7/stderr").status == 404
    (tmp_path / "b" / "logs").mkdir(parents=True)
    (tmp_path / "b" / "logs" / "7").symlink_to(_with_output(tmp_path / "c"))
    assert RunnerApi(tmp_path / "b").as_host("GET", "/api/logs/7/stdout").status == 404
