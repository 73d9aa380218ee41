"""What must be let through in the Docker engine's own chain for others' rules, DOCKER-USER.

The engine's policy for what passes through the machine is to drop it, and no table of ours can undo that: a
packet must be accepted everywhere. So rules that accept stand there, known by their comment, and nothing else
in the chain is touched. iptables has two variants with tables of their own, and a machine may hold rules of
both: ours stand in each that has the chain. Where an engine works without iptables there is no such chain,
and nothing to do.
"""

import re
import shlex
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import pairwise

from kohakuriver.network.programs import NetworkFault, run

CHAIN = "DOCKER-USER"
_VARIANTS = ("iptables-nft", "iptables-legacy")
_UNNAMED = "iptables"  # of machines that have one variant only
_LOCK_SECONDS = "5"
_COMMENT = re.compile(r"[a-z][a-z0-9-]{0,60}")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_ENDS_CHAIN = ["-j", "RETURN"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Packets that are let through; what is left out is any."""

    from_link: str = ""
    to_link: str = ""
    source: IPv4Network | None = None
    destination: IPv4Network | None = None

    def __post_init__(self) -> None:
        for name in (self.from_link, self.to_link):
            if name and not _LINK.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is no name of a link")
        if not (self.from_link or self.to_link or self.source or self.destination):
            raise ValueError("a rule that accepts everything is none of ours")

    def words(self, comment: str) -> list[str]:
        """As iptables-save writes it."""
        parts = (
            ("-s", self.source),
            ("-d", self.destination),
            ("-i", self.from_link),
            ("-o", self.to_link),
        )
        given = [word for option, value in parts if value for word in (option, str(value))]
        return [*given, "-m", "comment", "--comment", comment, "-j", "ACCEPT"]


async def ensure_accepted(comment: str, wanted: Collection[Accepted]) -> list[str]:
    """Bring our rules in the engine's chain to these; return the programs that changed something.

    Raises NetworkFault.
    """
    if not _COMMENT.fullmatch(comment):
        raise ValueError(f"{comment[:70]!r} is no comment of ours")
    changed = []
    for program in _programs():
        text = changes((await run(f"{program}-save")).decode(errors="replace"), comment, wanted)
        if text:
            try:
                await run(f"{program}-restore", "-w", _LOCK_SECONDS, "--noflush", text=text)
            except NetworkFault as error:
                raise NetworkFault(f"our rules in {CHAIN} cannot be put right: {error}") from error
            changed.append(program)
    return changed


def _programs() -> list[str]:
    named = [name for name in _VARIANTS if shutil.which(f"{name}-save")]
    return named or [name for name in [_UNNAMED] if shutil.which(f"{name}-save")]


def changes(saved: str, comment: str, wanted: Collection[Accepted]) -> str:
    """Commands for iptables-restore, from what iptables-save says; "" where there is nothing to do."""
    if not any(line.startswith(f":{CHAIN} ") for line in _filter_lines(saved)):
        return ""
    rules = [words[2:] for words in map(_split, _filter_lines(saved)) if words[:2] == ["-A", CHAIN]]
    own = [rule for rule in rules if _has_comment(rule, comment)]
    lines = [one.words(comment) for one in wanted]
    reached = rules[: rules.index(_ENDS_CHAIN)] if _ENDS_CHAIN in rules else rules
    if sorted(own) == sorted(lines) and all(rule in reached for rule in own):
        return ""
    commands = [*(["-D", CHAIN, *rule] for rule in own), *(["-I", CHAIN, *line] for line in lines)]
    return "\n".join(["*filter", *map(shlex.join, commands), "COMMIT", ""])


def _filter_lines(saved: str) -> Iterator[str]:
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line.strip()
        elif table == "*filter":
            yield line


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []  # with marks that only iptables reads: it is none of ours


def _has_comment(rule: list[str], comment: str) -> bool:
    return any(pair == ("--comment", comment) for pair in pairwise(rule))
