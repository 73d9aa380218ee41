"""One SSH connection: who logs in, and what is asked for from then on.

Logging in is decided in one step each, without waiting, so that what was decided last is what SSH took: a
public key that was only shown, or a second attempt beside the first, changes nothing afterwards. Every
refusal and every connection that is opened leaves a line in the log; names are written escaped and cut.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol, cast

import asyncssh
import structlog
from asyncssh import ChannelOpenError

from kohakuriver.host.audit import NOBODY, AuditEvent, AuditLog, Outcome
from kohakuriver.host.auth.service import RIGHTS_CHANGED
from kohakuriver.host.gateway.client_line import WINDOW_BYTES, ClientLine
from kohakuriver.host.gateway.paced_connection import PacedConnection
from kohakuriver.host.gateway.vps_access import Login, VpsAccess
from kohakuriver.models.errors import Conflict, Denied, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.tasks import Task
from kohakuriver.streams.forwarding import expect_opened, relay
from kohakuriver.wire.channel import Channel

MOST_LOGIN_ATTEMPTS = 20
"""Keys that a client merely offers count; an agent may hold some."""
MOST_CHANNELS = 64
MOST_REFUSALS = 100
"""Of a client that has logged in; who goes on asking for what it cannot have is not listened to for ever."""

_OPENING_SECONDS = 20.0
_SHOWN_CHARACTERS = 64
_NOTHING_ELSE = "this gateway opens connections to VPSs and nothing else; use it as a jump host (ssh -J)"
_log = structlog.get_logger(__name__)


class LastingConnection(Protocol):
    """A connection that lasts until its client goes, the right to it is lost, or the host goes down."""

    def end(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class SshConnectionParts:
    """What every connection works with.

    `spawn` gives a task an owner that outlives the connection; `connections` are all that last.
    """

    access: VpsAccess
    audit: AuditLog
    spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
    connections: "set[LastingConnection]"


@dataclass(eq=False, slots=True)
class _Passage:
    task: Task
    channel: Channel
    line: ClientLine
    carrying: "asyncio.Task[None] | None" = field(default=None)


class SshConnection(asyncssh.SSHServer):
    """Made when a client has been let near; asyncssh calls most of it."""

    _connection: PacedConnection

    def __init__(self, parts: SshConnectionParts) -> None:
        self._parts = parts
        self._address = ""
        self._is_logging_in = True
        self._over = False
        self._attempts = 0
        self._refusals = 0
        self._user = ""
        self._credential: Callable[[], Login | None] = lambda: None
        self._login: Login | None = None
        self._opening = 0
        self._passages: set[_Passage] = set()
        self._held = ExitStack()

    # The connection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = cast(PacedConnection, conn)
        self._address = self._connection.address
        self._parts.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._held.close()
        self._end_login()
        self._parts.connections.discard(self)
        for passage in self._passages:
            passage.line.connection_lost(exc)

    def _end_login(self) -> None:
        if self._is_logging_in:
            self._is_logging_in = False
            self._connection.login_is_over()

    # Logging in

    def begin_auth(self, username: str) -> bool:
        self._user = username
        everybody = self._parts.access.everybody
        return everybody is None or not self._try("none", lambda: Login(everybody))

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self._user = username
        return self._try("token", lambda: self._parts.access.login_of_token(password))

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._user = username
        text = " ".join(key.export_public_key("openssh").decode("ascii", "replace").split()[:2])
        return self._try("public key", lambda: self._parts.access.login_of_key(text))

    def auth_completed(self) -> None:
        self._end_login()
        if self._login is not None:
            self._record("ssh.login", Outcome.DONE, detail=f"as {shown(self._user)}")
            self._held.enter_context(self._parts.access.rights.held(self._refusal, self.end))

    def _try(self, method: str, credential: Callable[[], Login | None]) -> bool:
        self._attempts += 1
        self._login = credential() if self._attempts <= MOST_LOGIN_ATTEMPTS else None
        self._credential = credential
        if self._login is not None:
            return True
        self._record("ssh.login", Outcome.REFUSED, detail=f"by {method} as {shown(self._user)}")
        if self._attempts >= MOST_LOGIN_ATTEMPTS:
            self.end("too many attempts to log in")
        return False

    # What is asked for

    def session_requested(self) -> NoReturn:
        self._refuse("session", Denied(_NOTHING_ELSE))

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return self._deny("remote port forwarding")

    def unix_connection_requested(self, dest_path: str) -> NoReturn:
        self._refuse("socket", Denied(_NOTHING_ELSE))

    def unix_server_requested(self, listen_path: str) -> bool:
        return self._deny("remote socket forwarding")

    def tun_requested(self, unit: int | None) -> NoReturn:
        self._refuse("tunnel", Denied(_NOTHING_ELSE))

    def tap_requested(self, unit: int | None) -> NoReturn:
        self._refuse("tunnel", Denied(_NOTHING_ELSE))

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> tuple[asyncssh.SSHTCPChannel[bytes], Coroutine[Any, Any, ClientLine]]:
        """`direct-tcpip`: the host is a VPS's name, whatever it may be in the client's own network."""
        if self._opening + len(self._passages) >= MOST_CHANNELS:
            self._refuse(
                "connection",
                Unavailable(f"a connection to the gateway carries {MOST_CHANNELS} others; make a second one"),
                asyncssh.OPEN_RESOURCE_SHORTAGE,
            )
        self._opening += 1
        opening = self._open(self._connection, dest_host, dest_port)
        return self._connection.create_tcp_channel(window=WINDOW_BYTES), opening

    async def _open(self, connection: PacedConnection, host: str, port: int) -> ClientLine:
        try:
            task, channel = await self._enter(host, port)
        except KohakuRiverError as error:
            self._refuse("connection", error, destination=f"{shown(host)}:{port}")
        except Exception as error:  # noqa: BLE001 - boundary of one request
            _log.exception("ssh_open_failed", address=self._address)
            self._refuse("connection", Unavailable(f"the host failed ({type(error).__name__}); see its log"))
        finally:
            self._opening -= 1
        passage = _Passage(task, channel, ClientLine(connection.room))
        self._passages.add(passage)
        passage.carrying = self._parts.spawn(self._carry(passage))
        return passage.line

    async def _enter(self, host: str, port: int) -> tuple[Task, Channel]:
        if self._login is None:
            raise Denied("log in first")
        if (refusal := self._refusal()) is not None:
            raise Denied(refusal)
        task = self._parts.access.admit(self._login, host, port)
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                channel = await self._parts.access.open_forward(task, port)
                try:
                    await expect_opened(channel)
                    self._check_client_waits()
                except BaseException:
                    await channel.close()
                    raise
        except TimeoutError as error:
            raise Unavailable(f"node {task.assigned_node} does not answer in time") from error
        return task, channel

    async def _carry(self, passage: _Passage) -> None:
        facts = {"actor": self._name, "address": self._address, "session": passage.task.id}
        self._record("ssh.open", Outcome.DONE, thing=str(passage.task.id))
        reason = "over"
        check, cut_off = partial(self._refusal_of, passage.task), partial(self._cut_off, passage)
        try:
            with self._parts.access.rights.held(check, cut_off):
                await relay(passage.channel, passage.line)
        except KohakuRiverError as error:
            reason = str(error)
        except Exception:  # noqa: BLE001 - boundary of one forwarded connection
            _log.exception("ssh_relay_failed", **facts)
            reason = "the host failed"
        finally:
            self._passages.discard(passage)
            passage.line.close()
            await passage.channel.close()
            _log.info("ssh_closed", **facts, reason=reason)

    def _check_client_waits(self) -> None:
        if self._over:
            raise Unavailable("the client is gone")

    def _deny(self, what: str) -> bool:
        self._count_refusal(what, _NOTHING_ELSE, None)
        return False

    def _refuse(
        self, what: str, error: KohakuRiverError, code: int | None = None, destination: str | None = None
    ) -> NoReturn:
        self._count_refusal(what, str(error), destination)
        if code is None:
            prohibited = isinstance(error, Denied | NotFound | Conflict)
            code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED if prohibited else asyncssh.OPEN_CONNECT_FAILED
        raise ChannelOpenError(code, str(error))

    def _count_refusal(self, what: str, reason: str, destination: str | None) -> None:
        self._record("ssh.open", Outcome.REFUSED, thing=destination or "", detail=what, reason=reason)
        self._refusals += 1
        if self._refusals >= MOST_REFUSALS:
            self.end("too much was asked for that cannot be had")

    def _record(
        self, action: str, outcome: Outcome, *, thing: str = "", detail: str = "", reason: str = ""
    ) -> None:
        actor = self._login.actor if self._login else None
        event = AuditEvent(
            action=action,
            actor=self._name,
            token_id=actor.token_id if actor else "",
            object=thing,
            detail=detail,
            address=self._address,
            reason=reason,
        )
        self._parts.audit.record(event, outcome)

    @property
    def _name(self) -> str:
        return NOBODY if self._login is None else self._login.name

    # The rights

    def _refusal(self) -> str | None:
        """Say why the credential does not carry the connection any more; learn what a key opens meanwhile."""
        login = self._credential()
        if self._login is None or login is None or login.actor != self._login.actor:
            return RIGHTS_CHANGED
        self._login = login
        return None

    def _refusal_of(self, task: Task) -> str | None:
        # The connection itself was asked before, and knows what its credential opens now.
        if self._login is not None and self._parts.access.still_admits(self._login, task.id):
            return None
        return "the VPS is not there any more, or not for this user"

    # The end

    def _cut_off(self, passage: _Passage, reason: str) -> None:
        facts = {"actor": self._name, "address": self._address, "session": passage.task.id}
        _log.info("ssh_ended", **facts, reason=reason)
        _abort(passage)

    def end(self, reason: str) -> None:
        """Break the connection off, with all that it carries."""
        if self._over:
            return
        self._over = True
        _log.info("ssh_ended", actor=self._name, address=self._address, reason=reason)
        for passage in tuple(self._passages):
            _abort(passage)
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)


def _abort(passage: _Passage) -> None:
    if passage.carrying is not None:
        passage.carrying.cancel()


def shown(text: str) -> str:
    """Text that a client sent, as it may stand in a log."""
    return ascii(text[:_SHOWN_CHARACTERS])[1:-1]
