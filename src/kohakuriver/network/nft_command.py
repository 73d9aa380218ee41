"""The program `nft`: rule sets go in as one transaction, tables come back as JSON. And a call of `ip`.

Only tables of ours are named to `nft`. What it gets is made only of checked names, numbers and addresses.
"""

import asyncio
import json
import os
from typing import Any

from kohakuriver.models.errors import KohakuRiverError

_SECONDS = 10.0
_PACKAGES = {"nft": "nftables", "ip": "iproute2"}
_SHOWN_CHARACTERS = 300


class NftFault(KohakuRiverError):
    """The program is not there, or the kernel did not take what it was given."""


async def apply_rules(text: str) -> None:
    """Carry out the commands, all or none."""
    await _run("nft", "-f", "-", text=text)


async def learn_nothing_from_link_local(bridge: str) -> None:
    """Some frames between neighbouring switches pass no hook, and a bridge would learn from them."""
    await _run("ip", "link", "set", "dev", bridge, "type", "bridge", "no_linklocal_learn", "1")


async def list_tables() -> list[tuple[str, str]]:
    """Family and name of every table."""
    rows = [row["table"] for row in await _listing("tables") if "table" in row]
    return [(row["family"], row["name"]) for row in rows]


async def list_table(family: str, name: str) -> list[dict[str, Any]]:
    """What is in it, in the form of libnftables-json(5); raises NftFault if it is not there."""
    return await _listing("table", family, name)


async def _listing(*what: str) -> list[dict[str, Any]]:
    said = await _run("nft", "-j", "list", *what)
    rows: list[dict[str, Any]] = json.loads(said)["nftables"]
    return [row for row in rows if "metainfo" not in row]


async def _run(program: str, *arguments: str, text: str = "") -> bytes:
    # No pipe: one whose reader has ended already cannot be written to, and the loop raises for it.
    given = os.memfd_create(program)
    try:
        with os.fdopen(given, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise NftFault(f"the program {program} is missing (package {_PACKAGES[program]})") from error
    except OSError as error:
        raise NftFault(f"{program} cannot be run: {error.strerror}") from error
    finally:
        os.close(given)
    try:
        async with asyncio.timeout(_SECONDS):
            said, complaint = await process.communicate()
    except TimeoutError as error:
        raise NftFault(f"{program} has not ended within {_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode != 0:
        words = " ".join(complaint.decode(errors="replace").split())[:_SHOWN_CHARACTERS]
        raise NftFault(f"{program} refused: {words or f'status {process.returncode}'}")
    return said
