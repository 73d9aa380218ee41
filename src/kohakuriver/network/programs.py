"""Programs that change and show links, routes and filters: `ip`, `bridge`, `nft`, `iptables`.

They are called with a list of arguments and get what is to be done by standard input. How long one runs and
how much it says is bounded.
"""

import asyncio
import json
import os
from typing import Any

from kohakuriver.models.errors import KohakuRiverError

_SECONDS = 10.0
_MOST_BYTES = 16 << 20
_READ_BYTES = 1 << 16
_SHOWN_CHARACTERS = 300
_PACKAGES = {"nft": "nftables", "ip": "iproute2", "bridge": "iproute2"}


class NetworkFault(KohakuRiverError):
    """The program is not there, or the kernel did not take what it was given."""


class Refused(NetworkFault):
    """The program ended with a complaint; `words` is all of it."""

    def __init__(self, program: str, words: str) -> None:
        shown = " ".join(words.split())[:_SHOWN_CHARACTERS]
        super().__init__(f"{program} refused: {shown}")
        self.words = words


async def run(program: str, *arguments: str, text: str = "") -> bytes:
    """Run it to its end and return what it said; raises NetworkFault."""
    process = await _started(program, arguments, text)
    try:
        async with asyncio.timeout(_SECONDS):
            said, complaint = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            await process.wait()
    except TimeoutError as error:
        raise NetworkFault(f"{program} has not ended within {_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode != 0:
        raise Refused(program, complaint.decode(errors="replace").strip() or f"status {process.returncode}")
    if len(said) > _MOST_BYTES:
        raise NetworkFault(f"{program} said more than {_MOST_BYTES >> 20} MiB")
    return said


async def run_for_json(program: str, *arguments: str, text: str = "") -> list[Any]:
    """Run it and read what it says, one answer in each line; raises NetworkFault."""
    said = await run(program, *arguments, text=text)
    try:
        return [json.loads(line) for line in said.splitlines() if line.strip()]
    except ValueError as error:
        raise NetworkFault(f"{program} said what is no JSON: {said[:_SHOWN_CHARACTERS]!r}") from error


async def _started(program: str, arguments: tuple[str, ...], text: str) -> asyncio.subprocess.Process:
    # No pipe: one whose reader has ended already cannot be written to, and the loop raises for it.
    given = os.memfd_create(program)
    try:
        with os.fdopen(given, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        return await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        package = _PACKAGES.get(program, "iptables")
        raise NetworkFault(f"the program {program} is missing (package {package})") from error
    except OSError as error:
        raise NetworkFault(f"{program} cannot be run: {error.strerror}") from error
    finally:
        os.close(given)


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end, and keep no more than one read above what is permitted."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(_READ_BYTES)):
        if len(kept) <= _MOST_BYTES:
            kept += chunk
    return bytes(kept)
