"""Pulls that outlast a bad moment of a registry: one that is busy or unreachable is asked again after pauses.

An engine says what went wrong only in a sentence, so the sentences that stand for a bad moment are known
here. All others (no such image, no such machine, no right to it) are final.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

from kohakuriver.dockerapi.images import Progress
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.shared_sentences import PULL_TRIED_AGAIN
from kohakuriver.pauses import growing_pauses

FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_REASON = 200
_BAD_MOMENT = re.compile(
    r"toomanyrequests|too many requests|rate ?limit"
    r"|HTTP status:? (?:429|5\d\d)|HTTP (?:429|5\d\d) response"
    r"|connection refused|connection reset|broken pipe|unexpected EOF|: EOF\b"
    r"|i/o timeout|TLS handshake timeout|Client\.Timeout|deadline exceeded|connection timed out"
    r"|no route to host|network is unreachable|temporary failure in name resolution|server misbehaving"
    r"|^unavailable:|service unavailable",
    re.IGNORECASE,
)


class RegistryBusy(EngineFault):
    """The registry was busy or unreachable for as long as it was asked."""


def is_bad_moment(sentence: str) -> bool:
    """Tell whether the engine's sentence stands for something that passes by itself."""
    return _BAD_MOMENT.search(sentence) is not None


async def with_patience(
    pull: Callable[[], Awaitable[None]], what: str, seconds: float, on_progress: Progress
) -> None:
    """Pull until that works; raises RegistryBusy once no further try fits into the time.

    Any other error is raised as it is. A pull that hangs is for the caller to end.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    pauses = growing_pauses(FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0)
    for tries, pause_seconds in enumerate(pauses, 1):
        try:
            await pull()
        except EngineFault as error:
            reason = str(error)
            if not is_bad_moment(reason):
                raise
            if clock() + pause_seconds >= deadline:
                times = "once" if tries == 1 else f"{tries} times"
                raise RegistryBusy(f"{reason} (tried {times} within {seconds:g} seconds)") from error
            again = f"{PULL_TRIED_AGAIN} {pause_seconds:g} s (try {tries + 1})"
            on_progress(f"{what}: {reason[:_LONGEST_REASON]}; {again}")
            await asyncio.sleep(pause_seconds)
        else:
            return
