"""Has a VPS's sshd run, and tells by its banner that it does.

What is done inside the container stands in `ssh_setup.sh`; nothing that anybody wrote goes through its shell.
"""

import asyncio
from collections.abc import Awaitable, Callable

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.exec_stream import ExecOptions, ExecStream
from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.contract.ports import Connection
from kohakuriver.runner.engines.contract.vps import NO_SSH_HELP
from kohakuriver.runner.engines.docker.access.ports import SSH_PORT
from kohakuriver.runner.engines.docker.inside.of_vps import BUSYBOX, SSH_SETUP, USER

Dial = Callable[[], Awaitable[Connection]]
# A package manager may fetch its lists and packages from afar.
_SET_UP_SECONDS = 900.0
BANNER_SECONDS = 20.0
_PAUSE_SECONDS = 0.02
_BANNER = b"SSH-"
_SAID_BYTES = 4096
_SHOWN_CHARACTERS = 600

_STARTED, _NOTHING_THERE, _NOT_INSTALLED = 0, 10, 11


async def ensure_sshd(api: DockerApi, container_id: str, dial: Dial) -> None:
    """Return when sshd answers to `dial`; raises EngineFault that says what the owner can do."""
    try:
        async with asyncio.timeout(_SET_UP_SECONDS):
            status, said = await _run(api, container_id)
    except TimeoutError as error:
        raise EngineFault(
            f"sshd was not installed within {_SET_UP_SECONDS / 60:.0f} minutes; {NO_SSH_HELP}"
        ) from error
    if status != _STARTED:
        raise EngineFault(set_up_fault(status, said))
    await _await_banner(dial)


def set_up_fault(status: int, said: str) -> str:
    """The sentence for an exit status of the script, with the last of what it said."""
    words = " ".join(said.split())[-_SHOWN_CHARACTERS:]
    if status == _NOTHING_THERE:
        return f"the image holds neither sshd nor a package manager that could install it; {NO_SSH_HELP}"
    if status == _NOT_INSTALLED:
        return f"the image holds no sshd, and its package manager could not add it: {words}; {NO_SSH_HELP}"
    return f"sshd could not be started (status {status}): {words or 'it said nothing'}; {NO_SSH_HELP}"


async def _run(api: DockerApi, container_id: str) -> tuple[int, str]:
    """Run the script to its end; return its exit status and the last of what it said."""
    options = ExecOptions((BUSYBOX, "sh", SSH_SETUP), user=USER, working_dir="/")
    stream = await ExecStream.open(api, container_id, options)
    said = b""
    try:
        await stream.close_input()
        while (piece := await stream.read()) is not None:
            said = (said + piece[1])[-_SAID_BYTES:]
        return await stream.exit_status(), said.decode(errors="replace")
    finally:
        await asyncio.shield(stream.close())


async def _await_banner(dial: Dial) -> None:
    deadline = asyncio.get_running_loop().time() + BANNER_SECONDS
    while not await _answers(dial):
        if asyncio.get_running_loop().time() > deadline:
            raise EngineFault(
                f"sshd was started and does not answer at port {SSH_PORT} of the VPS "
                "(/run/kohakuriver/sshd.log in it may say why); is the port taken?"
            )
        await asyncio.sleep(_PAUSE_SECONDS)


async def _answers(dial: Dial) -> bool:
    try:
        async with asyncio.timeout(BANNER_SECONDS):
            reader, writer = await dial()
            try:
                return await reader.read(len(_BANNER)) == _BANNER
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
