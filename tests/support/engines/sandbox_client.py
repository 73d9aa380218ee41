"""The client of a sandbox, and one by hand: what it is told, and WebSockets that begin in its network."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from kohakuriver.files.system.calls import CLONE_NEWNET, setns
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import PLACE
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL
from kohakuriver.wire.tunnel.proof import Prover, new_nonce, proof


@dataclass(frozen=True)
class Told:
    """What stands in the folder of a sandbox."""

    address: str
    port: int
    name: str
    secret: bytes = field(repr=False)


def seen_in(sandbox: Sandbox) -> Path:
    """The folder as the sandbox's own process sees it."""
    assert sandbox.mark is not None
    return Path(f"/proc/{sandbox.mark.pid}/root{PLACE}")


def client_of(sandbox: Sandbox) -> list[int]:
    """The processes that its first one has started, which is the client."""
    assert sandbox.mark is not None
    pid = sandbox.mark.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def told(sandbox: Sandbox) -> Told:
    folder = seen_in(sandbox)
    place = json.loads((folder / "runner.json").read_bytes())
    return Told(**place, secret=bytes.fromhex((folder / "secret").read_text()))


async def dial(sandbox: Sandbox, address: str, port: int) -> socket.socket:
    """A connection that begins in the sandbox's network."""
    made = await socket_in(sandbox)
    try:
        async with asyncio.timeout(20):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


async def socket_in(sandbox: Sandbox, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket of the sandbox's network."""
    thread = ThreadPoolExecutor(1)
    made = await asyncio.get_running_loop().run_in_executor(thread, _socket_in, sandbox, kind)
    thread.shutdown(wait=False)
    return made


def _socket_in(sandbox: Sandbox, kind: socket.SocketKind) -> socket.socket:
    """In a thread of its own, since it stays where it has gone."""
    assert sandbox.mark is not None
    namespace = os.open(f"/proc/{sandbox.mark.pid}/ns/net", os.O_RDONLY)
    setns(namespace, CLONE_NEWNET)
    os.close(namespace)
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    return made


@asynccontextmanager
async def knocking(
    sandbox: Sandbox, name: str | None = None, subprotocol: str = SUBPROTOCOL
) -> AsyncIterator[ClientConnection]:
    """A WebSocket to the tunnel's route, by default under the sandbox's own name."""
    place = told(sandbox)
    path = f"/ws/tunnel/{name or place.name}"
    connection = await dial(sandbox, place.address, place.port)
    chosen = [Subprotocol(subprotocol)]
    async with connect(
        f"ws://{place.address}:{place.port}{path}", sock=connection, subprotocols=chosen, proxy=None
    ) as client:
        yield client


async def prove(client: ClientConnection, name: str, secret: bytes) -> bool:
    """Answer the challenge; whether the runner has proven itself in turn. ConnectionClosed: it refuses."""
    challenge = str(await client.recv())
    answer = answer_to(challenge, name, secret)
    await client.send(answer)
    confirmed = json.loads(await client.recv())
    nonces = json.loads(challenge)["nonce"], json.loads(answer)["nonce"]
    return bool(confirmed["proof"] == proof(secret, Prover.RUNNER, name, *nonces))


def answer_to(challenge: str, name: str, secret: bytes) -> str:
    nonce = new_nonce()
    proven = proof(secret, Prover.CLIENT, name, json.loads(challenge)["nonce"], nonce)
    return json.dumps({"nonce": nonce, "proof": proven})


@asynccontextmanager
async def connected(sandbox: Sandbox) -> AsyncIterator[ClientConnection]:
    place = told(sandbox)
    async with knocking(sandbox) as client:
        assert await prove(client, place.name, place.secret)
        yield client
