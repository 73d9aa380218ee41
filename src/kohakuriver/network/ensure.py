"""Bringing this machine's links, addresses and routes to what is wanted: look, plan, apply.

A plan is carried out by one call of `ip` and one of `bridge`. A command that fails keeps none of the others
from being tried: one route that cannot be is no reason to have none.
"""

import re
from collections.abc import Sequence

from kohakuriver.network.found import SETTINGS, look
from kohakuriver.network.plan import Command, Plan, plan, subject_of_setting
from kohakuriver.network.programs import NetworkFault, Refused, run
from kohakuriver.network.wanted import Marks, Setting, Wanted

# What `ip` and `bridge` say behind a complaint, with the number of the line that it is about.
_FAILED = re.compile(r"(.*?)\s*Command failed -:([0-9]+)", re.DOTALL)
_KIND = re.compile(r"link add .* type ([a-z]+)")
_NO_RIGHTS = "Operation not permitted"
_UNKNOWN_KIND = ("Unknown device type", "Operation not supported")


async def ensure(wanted: Wanted) -> Plan:
    """Change what is not as wanted, and return what was done; raises NetworkFault for what is not so then."""
    made = plan(await look(wanted.settings), wanted)
    await apply(made)
    return made


async def take_away(marks: Marks) -> Plan:
    """Remove all that carries these marks; return what was done."""
    return await ensure(Wanted(marks))


async def apply(made: Plan) -> None:
    """Carry it out as far as it can be; raises NetworkFault that names the first thing that could not."""
    faults = [*made.obstacles, *await _batch("ip", made.links)]
    faults += [fault for setting in made.settings if (fault := _write(setting))]
    faults += await _batch("bridge", made.forwarding)
    if faults:
        raise NetworkFault(faults[0])


async def _batch(program: str, commands: Sequence[Command]) -> list[str]:
    """A sentence for each command that failed."""
    if not commands:
        return []
    try:
        await run(program, "-force", "-batch", "-", text="".join(f"{one.line}\n" for one in commands))
    except Refused as refused:
        failed = [(words, int(number)) for words, number in _FAILED.findall(refused.words)]
        named = [(words, commands[number - 1]) for words, number in failed if 1 <= number <= len(commands)]
        return [_sentence(command, words) for words, command in named] or [str(refused)]
    return []


def _sentence(command: Command, words: str) -> str:
    said = " ".join(words.removeprefix("RTNETLINK answers:").removeprefix("Error:").split())
    kind = _KIND.match(command.line)
    if _NO_RIGHTS in said:
        said = "this process may not change the network (it lacks CAP_NET_ADMIN); run it as root"
    elif kind is not None and any(words in said for words in _UNKNOWN_KIND):
        said = f"this kernel has no devices of this kind (module {kind[1]}: {said})"
    return f"{command.subject} cannot be put right: {said}"


def _write(setting: Setting) -> str | None:
    try:
        (SETTINGS / setting.link / setting.name).write_text(f"{setting.value}\n")
    except OSError as error:
        return f"{subject_of_setting(setting)} cannot be set to {setting.value}: {error.strerror}"
    return None
