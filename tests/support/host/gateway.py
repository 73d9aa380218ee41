"""The SSH gateway as it runs in a host, and the runner's end of its streams, with users and VPSs at will.

It runs in a thread of its own, since stock SSH clients are processes that a test waits for.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import structlog
import uvloop

from kohakuriver.host.audit import AuditLog
from kohakuriver.host.auth import Actor, Rights
from kohakuriver.host.gateway.late_gateway import LateGateway
from kohakuriver.host.gateway.vps_access import VpsAccess
from kohakuriver.host.ssh_key_pairs import SshKeyPair, new_key_pair
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import Role, SshKeyMode, TaskState, TaskType
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import vps_container_name
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.vps import VpsSpec
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.forwarding import Forwarding
from kohakuriver.serving import bind_listener
from kohakuriver.wire.channel import Channel
from support.messages.channels import channel_pair

HELENS = TaskId(310_000_000_000_004_242)
IVANS = TaskId(310_000_000_000_005_353)
TOKENS = {
    "kr_helens-token-0123456789abcdefghijklmnopqr": Actor("helen", Role.USER),
    "kr_ivans-token-0123456789abcdefghijklmnopqrs": Actor("ivan", Role.USER),
    "kr_odas-token-0123456789abcdefghijklmnopqrst": Actor("oda", Role.OPERATOR),
}
HELEN, IVAN, ODA = TOKENS


def vps(
    task_id: TaskId,
    owner: str,
    name: str | None = None,
    keys: tuple[str, ...] = (),
    mode: SshKeyMode = SshKeyMode.UPLOAD,
    state: TaskState = TaskState.RUNNING,
) -> Task:
    """A VPS as the control room has it."""
    vps = VpsSpec(mode, tuple(f"{key} comment" for key in keys))
    spec = TaskSpec(command="", name=name, task_type=TaskType.VPS, vps=vps)
    return Task(task_id, spec, state, owner, datetime.now(UTC), attempt=Attempt(1, "n1"))


@dataclass
class GatewayHarness:
    """What the gateway looks at; a test changes it by its methods, and the gateway is told as by a commit.

    `dials`: ports at which VPSs' SSH is.
    """

    vps: dict[TaskId, Task] = field(default_factory=dict)
    tokens: dict[str, Actor] = field(default_factory=lambda: dict(TOKENS))
    dials: dict[TaskId, int] = field(default_factory=dict)
    everybody: Actor | None = None
    takes_earlier: bool = False
    port: int = 0
    public_key: str = ""
    log: list[MutableMapping[str, Any]] = field(default_factory=list)
    rights: Rights = field(default_factory=Rights)
    loop: asyncio.AbstractEventLoop | None = None

    def add(self, task: Task, port: int = 0) -> None:
        self.vps[task.id] = task
        self.dials[task.id] = port
        self._tell()

    def change(self, task_id: TaskId, **changes: Any) -> None:
        self.vps[task_id] = changed(self.vps[task_id], **changes)
        self._tell()

    def remove(self, task_id: TaskId) -> None:
        del self.vps[task_id]
        self._tell()

    def put_token(self, token: str, actor: Actor | None) -> None:
        """Have the token stand for this actor from now on; None: for nobody."""
        self.tokens.pop(token, None)
        if actor is not None:
            self.tokens[token] = actor
        self._tell()

    def _tell(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.rights.look_again)

    def lines(self, event: str) -> list[MutableMapping[str, Any]]:
        """Lines of that event, or audit lines of that action and outcome (`ssh.login done`)."""
        return [line for line in self.log if event in (line["event"], _audited(line))]

    def access(self, spawn: Callable[[Any], Any]) -> VpsAccess:
        async def open_forward(task: Task, port: int) -> Channel:
            near, far = channel_pair()
            spawn(
                self._serve(
                    StreamCall({"container": vps_container_name(task.id), "port": str(port)}, {}), far
                )
            )
            return near

        return VpsAccess(
            everybody=self.everybody,
            actor_of=self.tokens.get,
            vps_of_key=lambda key: [task.id for task in self.vps.values() if _has_key(task, key)],
            active=lambda: list(self.vps.values()),
            live=self.vps.get,
            may_use=lambda actor, task: actor.name == task.owner or actor.role >= Role.OPERATOR,
            open_forward=open_forward,
            rights=self.rights,
        )

    async def _serve(self, call: StreamCall, channel: Channel) -> None:
        engine: Any = SimpleNamespace(ports=self)
        try:
            await Forwarding(lambda _: engine).serve(call, channel)
        except KohakuRiverError as error:
            await channel.close(error)
        else:
            await channel.close()

    async def dial(self, task_id: TaskId, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert port == 22
        try:
            return await asyncio.open_connection("127.0.0.1", self.dials[task_id])
        except OSError as error:
            raise Unavailable("nothing listens at that port of the VPS") from error


@contextmanager
def gateway(harness: GatewayHarness, key: SshKeyPair | None = None) -> Iterator[GatewayHarness]:
    """Serve on a port of loopback; `harness.port` and `harness.public_key` say where."""
    ready, stop = threading.Event(), threading.Event()
    failure: list[BaseException] = []

    async def serve() -> None:
        harness.loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as streams:
            listener = bind_listener("127.0.0.1", 0, "HOST_SSH_PROXY_PORT")
            harness.port = listener.getsockname()[1]
            made = key or new_key_pair("")
            served = LateGateway(
                harness.port,
                made,
                harness.access(streams.create_task),
                AuditLog(1000, 1000),
                takes_earlier=harness.takes_earlier,
            )
            harness.public_key = served.public_key
            running = streams.create_task(served.run(listener))
            ready.set()
            await asyncio.to_thread(stop.wait)
            running.cancel()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised by the test
            failure.append(error)
        finally:
            ready.set()

    with structlog.testing.capture_logs() as log:
        harness.log = log
        thread = threading.Thread(target=run, name="gateway")
        thread.start()
        try:
            assert ready.wait(10)
            if failure:
                raise failure[0]
            yield harness
        finally:
            harness.loop = None
            stop.set()
            thread.join(20)
            assert not thread.is_alive()
    if failure:
        raise failure[0]


def _audited(line: MutableMapping[str, Any]) -> str:
    return f"{line['action']} {line['outcome']}" if line["event"] == "audit" else ""


def greeting(port: int, source: str = "127.0.0.1") -> bytes:
    """What the gateway says first to a connection from that address; empty if it says nothing."""
    with socket.create_connection(("127.0.0.1", port), 5, source_address=(source, 0)) as connection:
        return connection.recv(100)


def _has_key(task: Task, key: str) -> bool:
    return task.spec.vps is not None and any(
        known.split()[:2] == key.split()[:2] for known in task.spec.vps.authorized_keys
    )
