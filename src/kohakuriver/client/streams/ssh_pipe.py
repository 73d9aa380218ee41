"""A connection to a VPS's SSH server through the host's gateway, on standard input and output.

It is what `ssh` calls a proxy command. The gateway must show the key that the host said it has.
"""

import asyncio
import os
import sys
from dataclasses import dataclass, field

import asyncssh

from kohakuriver.client.errors import HostUnreachable
from kohakuriver.models.errors import Denied, Unauthenticated, Unavailable

_USER = "kohakuriver"
_PIECE_BYTES = 256 << 10
_CONNECT_SECONDS = 20
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """`host_key`: as `type base64`. `token` None: the host asks nobody for one."""

    host: str
    port: int
    host_key: str
    token: str | None = field(repr=False)


def pipe_to_vps(gateway: GatewayAddress, vps: str) -> None:
    """Run until the VPS ends the connection.

    Raises HostUnreachable, Unauthenticated, Denied or Unavailable with the gateway's sentence.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_pipe(gateway, vps))


async def _pipe(gateway: GatewayAddress, vps: str) -> None:
    where = f"{gateway.host} port {gateway.port}"
    try:
        async with await _connect(gateway) as connection:
            reader, writer = await connection.open_connection(vps, 22, encoding=None)
            sending = asyncio.create_task(_send(writer))
            try:
                await _receive(reader)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except asyncssh.PermissionDenied as error:
        raise Unauthenticated(
            "the SSH gateway does not take this token (any more); log in again or ask for a new one"
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise Denied(
            f"what answers at {where} is not the SSH gateway of this host: its key is another one"
        ) from error
    except asyncssh.ChannelOpenError as error:
        prohibited = error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        raise (Denied if prohibited else Unavailable)(error.reason) from error
    except asyncssh.Error as error:
        raise Unavailable(f"the SSH gateway ended the connection: {error.reason}") from error
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        raise HostUnreachable(
            f"no SSH gateway answers at {where} ({reason}); "
            "set KOHAKURIVER_SSH_PROXY_PORT if it is reached by another port"
        ) from error


async def _connect(gateway: GatewayAddress) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        gateway.host,
        gateway.port,
        known_hosts=([asyncssh.import_public_key(gateway.host_key)], [], []),
        username=_USER,
        password=gateway.token,
        client_keys=None,
        agent_path=None,
        gss_host=None,
        config=None,
        encryption_algs=_CIPHERS,
        compression_algs=["none"],
        connect_timeout=_CONNECT_SECONDS,
        login_timeout=_CONNECT_SECONDS,
    )


async def _send(writer: "asyncssh.SSHWriter[bytes]") -> None:
    loop = asyncio.get_running_loop()
    standard_input = asyncio.StreamReader(limit=_PIECE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(standard_input), sys.stdin.buffer)
    while data := await standard_input.read(_PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _receive(reader: "asyncssh.SSHReader[bytes]") -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(sys.stdout.fileno(), "wb", closefd=False)
    )
    transport.set_write_buffer_limits(0)  # so that what was drained has been written
    standard_output = asyncio.StreamWriter(transport, protocol, None, loop)
    while data := await reader.read(_PIECE_BYTES):
        standard_output.write(data)
        await standard_output.drain()
    standard_output.close()
