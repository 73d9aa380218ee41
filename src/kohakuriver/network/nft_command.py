"""The program `nft`: rule sets go in as one transaction, tables come back as JSON. And a call of `ip`.

Only tables of ours are named to `nft`. What it gets is made only of checked names, numbers and addresses.
"""

from typing import Any

from kohakuriver.network.programs import run, run_for_json


async def apply_rules(text: str) -> None:
    """Carry out the commands, all or none."""
    await run("nft", "-f", "-", text=text)


async def learn_nothing_from_link_local(bridge: str) -> None:
    """Some frames between neighbouring switches pass no hook, and a bridge would learn from them."""
    await run("ip", "link", "set", "dev", bridge, "type", "bridge", "no_linklocal_learn", "1")


async def list_tables() -> list[tuple[str, str]]:
    """Family and name of every table."""
    rows = [row["table"] for row in await _listing("tables") if "table" in row]
    return [(row["family"], row["name"]) for row in rows]


async def list_table(family: str, name: str) -> list[dict[str, Any]]:
    """What is in it, in the form of libnftables-json(5); raises NetworkFault if it is not there."""
    return await _listing("table", family, name)


async def _listing(*what: str) -> list[dict[str, Any]]:
    answers = await run_for_json("nft", "-j", "list", *what)
    return [row for answer in answers for row in answer["nftables"] if "metainfo" not in row]
