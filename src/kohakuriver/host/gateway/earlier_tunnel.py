"""What command lines of KohakuRiver 1.0 say instead of an SSH greeting, only with SSH_PROXY_V1.

`REQUEST_TUNNEL <id>` is answered `SUCCESS`, and the connection is the VPS's own sshd's from then on, or
`ERROR <sentence>`. The line carries no credential, so it leads only into VPSs whose sshd asks for a key,
and every other VPS is answered like one that is not there.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from functools import partial

import structlog

from kohakuriver.host.audit import NOBODY, AuditEvent, Outcome
from kohakuriver.host.gateway.ssh_connection import SshConnectionParts
from kohakuriver.host.gateway.vps_access import SSH_PORT
from kohakuriver.models.errors import Denied, KohakuRiverError, Unavailable
from kohakuriver.models.tasks import Task
from kohakuriver.streams.forwarding import expect_opened, relay
from kohakuriver.streams.socket_line import SocketLine
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel

_PREFIX = b"REQUEST_TUNNEL "
_LINE = re.compile(rb"REQUEST_TUNNEL ([0-9]{1,19})\r?\n")
_MOST_BYTES = 64
_SILENCE_SECONDS = 2.0
"""For so long a client may wait to be greeted. SSH clients seldom do, and 1.0's speaks first."""
_OPENING_SECONDS = 20.0
_log = structlog.get_logger(__name__)


class FirstLine(asyncio.Protocol):
    """Tells by its first bytes what a connection is, and hands it on with what was heard.

    `as_ssh` and `as_tunnel` are called with all that was heard; `leave` if the client goes before.
    """

    def __init__(
        self,
        tcp: asyncio.Transport,
        as_ssh: Callable[[bytes], None],
        as_tunnel: Callable[[bytes], None],
        leave: Callable[[], None],
    ) -> None:
        self._tcp = tcp
        self._as_ssh = as_ssh
        self._as_tunnel = as_tunnel
        self._leave = leave
        self._heard = b""
        self._is_settled = False
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(_SILENCE_SECONDS, self._settle, as_ssh)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if not self._heard.startswith(_PREFIX[: len(self._heard)]):
            self._settle(self._as_ssh)
        elif b"\n" in self._heard:
            self._settle(self._as_tunnel)
        elif len(self._heard) > _MOST_BYTES:
            self._tcp.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._silence.cancel()
        if not self._is_settled:
            self._is_settled = True
            self._leave()

    def _settle(self, hand_on: Callable[[bytes], None]) -> None:
        self._silence.cancel()
        if not self._is_settled and not self._tcp.is_closing():
            self._is_settled = True
            hand_on(self._heard)


class EarlierTunnel:
    """One such connection, from its line on."""

    def __init__(
        self, parts: SshConnectionParts, tcp: asyncio.Transport, address: str, leave: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._tcp = tcp
        self._address = address
        self._leave = leave
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(MAX_MESSAGE_BYTES, loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        tcp.set_protocol(protocol)
        protocol.connection_made(tcp)
        self._writer = asyncio.StreamWriter(tcp, protocol, self._reader, loop)
        own: socket.socket | None = tcp.get_extra_info("socket")
        if own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def serve(self, heard: bytes) -> None:
        """Serve until either end is done. `heard` begins with the line, of which all is there."""
        self._parts.connections.add(self)
        try:
            await self._serve(heard)
        finally:
            self._parts.connections.discard(self)
            self._writer.close()
            self._leave()

    async def _serve(self, heard: bytes) -> None:
        line, end, rest = heard.partition(b"\n")
        match = _LINE.fullmatch(line + end)
        wanted = match[1].decode() if match else ""
        try:
            task = self._parts.access.admit_without_login(wanted)
            channel = await self._dial(task)
        except KohakuRiverError as error:
            self._record(Outcome.REFUSED, wanted, str(error))
            # Why a node does not answer is nothing for strangers.
            said = str(error) if isinstance(error, Denied) else "the VPS does not answer now; try again later"
            self._writer.write(f"ERROR {said}\n".encode())
            return
        self._record(Outcome.DONE, wanted)
        self._reader.feed_data(rest)
        try:
            self._writer.write(b"SUCCESS\n")
            with self._parts.access.rights.held(partial(self._refusal_of, task), self.end):
                await relay(channel, SocketLine(self._reader, self._writer, "the client"))
        except KohakuRiverError as error:
            _log.info("ssh_closed", actor=NOBODY, address=self._address, session=wanted, reason=str(error))
        finally:
            await channel.close()

    async def _dial(self, task: Task) -> Channel:
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                channel = await self._parts.access.open_forward(task, SSH_PORT)
                try:
                    await expect_opened(channel)
                except BaseException:
                    await channel.close()
                    raise
        except TimeoutError as error:
            raise Unavailable(f"node {task.assigned_node} does not answer in time") from error
        return channel

    def _refusal_of(self, task: Task) -> str | None:
        """Say why its VPS cannot be entered so any more."""
        try:
            self._parts.access.admit_without_login(str(task.id))
        except KohakuRiverError as error:
            return str(error)
        return None

    def end(self, reason: str) -> None:
        _log.info("ssh_ended", actor=NOBODY, address=self._address, reason=reason)
        self._tcp.abort()

    def _record(self, outcome: Outcome, wanted: str, reason: str = "") -> None:
        event = AuditEvent(
            action="ssh.open",
            actor=NOBODY,
            token_id="",
            object=wanted,
            detail="without a login (SSH_PROXY_V1)",
            address=self._address,
            reason=reason,
        )
        self._parts.audit.record(event, outcome)
