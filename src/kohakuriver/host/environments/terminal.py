"""A shell in an environment container, on a terminal of the engine's making.

The engine lets a shell live on when its connection goes, so closing hangs it up.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import structlog
from aiodocker.execs import Exec
from aiodocker.stream import Stream

from kohakuriver.dockerapi.client import DockerApi, mapped_errors
from kohakuriver.models.errors import KohakuRiverError

_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"
_MAX_SIDE = 4096
_EXIT_SECONDS = 5
_log = structlog.get_logger(__name__)


class Terminal:
    """Bytes in, bytes out. One reader and one writer at a time; `close` is free to call twice."""

    def __init__(self, api: DockerApi, container_id: str, exec_id: str, stream: Stream) -> None:
        self._api = api
        self._container_id = container_id
        self._exec_id = exec_id
        self._stream = stream
        self._closed = False

    @classmethod
    async def open(cls, api: DockerApi, container_id: str, rows: int, cols: int) -> "Terminal":
        """Start the shell: bash where the image has it, else sh."""
        made = await api.json(
            "POST",
            f"containers/{container_id}/exec",
            json={
                "AttachStdin": True,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": True,
                "Env": ["TERM=xterm-256color"],
                "Cmd": ["sh", "-c", _SHELL],
            },
        )
        exec_id = str(made["Id"])
        stream = Exec(api.client, exec_id, tty=True).start()
        with mapped_errors(api.url):
            await stream.__aenter__()
        terminal = cls(api, container_id, exec_id, stream)
        await terminal.resize(rows, cols)
        return terminal

    async def read(self) -> bytes:
        """Return what the shell wrote next; empty when it has ended."""
        with mapped_errors(self._api.url):
            message = await self._stream.read_out()
        return b"" if message is None else message.data

    async def write(self, data: bytes) -> None:
        with mapped_errors(self._api.url):
            await self._stream.write_in(data)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell the shell its size. Directly after the start the engine may refuse, so it is told twice."""
        size = {"h": str(min(max(rows, 1), _MAX_SIDE)), "w": str(min(max(cols, 1), _MAX_SIDE))}
        for last_try in (False, True):
            try:
                await self._api.json("POST", f"exec/{self._exec_id}/resize", params=size)
            except KohakuRiverError as error:
                if last_try:
                    _log.info("terminal_resize_refused", error=str(error))
                await asyncio.sleep(0.05)
            else:
                return

    async def exit_status(self) -> int | None:
        """The shell's exit status after its output has ended; None if it does not end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                while (facts := await self._inspect())["Running"]:  # noqa: ASYNC110 - the engine's state
                    await asyncio.sleep(0.02)
                return int(facts["ExitCode"])
        return None

    async def close(self) -> None:
        """Hang up: the shell and what runs on its terminal get SIGHUP."""
        if self._closed:
            return
        self._closed = True
        try:
            facts = await self._inspect()
            if facts["Running"]:
                await asyncio.to_thread(_hang_up, int(facts["Pid"]), self._container_id)
        finally:
            # aiodocker asserts that the connection is there, which it is not after the shell's end.
            with contextlib.suppress(AssertionError):
                await self._stream.close()

    async def _inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self._api.json("GET", f"exec/{self._exec_id}/json")
        return facts


def _hang_up(pid: int, container_id: str) -> None:
    """Signal the shell's process group, once it is sure that the pid is one of that container.

    Without effect where the engine runs elsewhere, or its processes are not ours to signal.
    """
    with contextlib.suppress(OSError):
        if pid > 1 and container_id in Path(f"/proc/{pid}/cgroup").read_text():
            os.killpg(pid, signal.SIGHUP)
