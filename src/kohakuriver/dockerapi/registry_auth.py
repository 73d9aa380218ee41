"""Credentials for a registry, in the form in which an engine takes them along with a pull.

Rules: a credential has no text form but the header; it is made when needed, used once, and kept nowhere.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import Progress, pull_image
from kohakuriver.dockerapi.pull_faults import BrokenOff, ExplainedPullFault
from kohakuriver.models.errors import EngineFault, KohakuRiverError, NotFound, Unavailable

_REFUSED = re.compile(
    r"unauthorized|authentication required|no basic auth credentials|access denied|access forbidden"
    r"|\bdenied:|incorrect username or password|403 forbidden|may require 'docker login'"
    r"|HTTP 40[13] response",
    re.IGNORECASE,
)
_MOST_TOKENS = 3


class CredentialUnread(EngineFault):
    """There may be a credential, and it cannot be read; the sentence says why, and nothing of it."""


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """`origin` says for people whose credential it is."""

    origin: str
    header: str = field(repr=False)


Candidate = Callable[[], Awaitable[RegistryAuth | None]]
"""Looks for one credential when it is its turn.

Raises Unavailable where it cannot be told now, CredentialUnread where somebody has to mend something.
"""


def registry_auth(origin: str, server: str, **fields: str) -> RegistryAuth:
    """`fields`: `username` and `password`, or `identitytoken`, or `registrytoken`."""
    document = {**fields, "serveraddress": server}
    return RegistryAuth(origin, base64.urlsafe_b64encode(json.dumps(document).encode()).decode())


async def pull_with(
    api: DockerApi,
    reference: str,
    candidates: Sequence[Candidate],
    on_progress: Progress,
    on_activity: Callable[[], None] | None = None,
) -> None:
    """Pull with the first credential that the registry takes; without one if it takes none of them.

    Raises Unavailable where it lets nobody in and not all credentials could be looked for.
    """
    refused: dict[str, KohakuRiverError] = {}
    unread: list[str] = []
    missing: Unavailable | None = None
    for candidate in candidates:
        try:
            auth = await candidate()
        except Unavailable as error:
            missing = error
            continue
        except CredentialUnread as error:
            unread.append(str(error))
            continue
        if auth is None:
            continue
        pull = partial(pull_image, api, reference, on_progress, on_activity, auth.header)
        refusal = await _refusal_of(pull, auth.origin)
        if refusal is None:
            return
        refused[auth.origin] = refusal
    refusal = await _refusal_of(
        partial(pull_image, api, reference, on_progress, on_activity), "no credentials"
    )
    if refusal is None:
        return
    if missing is not None:
        raise Unavailable(f"{refusal} (the cluster's credentials could not be asked for: {missing})")
    raise _refused(refusal, refused, unread) from refusal


def _refused(
    nobody: KohakuRiverError, refused: Mapping[str, KohakuRiverError], unread: Sequence[str]
) -> KohakuRiverError:
    """`nobody`: what was said without a credential; `refused`: what was said to whom."""
    tried = [f"it did not take {', nor '.join(refused)}, which may be wrong, have ended or been revoked"]
    told = "; ".join([*(tried if refused else []), *unread]) or "there are no credentials for it"
    # What is said to nobody, such as that there are no credentials, is not why somebody was refused.
    said = next(reversed(list(refused.values())), nobody)
    return type(said)(f"{said} ({told}; an operator gives the cluster some with `kohakuriver docker login`)")


async def _refusal_of(pull: Callable[[], Awaitable[None]], origin: str) -> KohakuRiverError | None:
    """The error of a registry that did not let the pull in; None if it was done. Raises any other.

    One that lets it in and refuses it later means a token that has ended, not who it was given to: an engine
    gets a new one with each try, of which there are few.
    """
    late: BrokenOff | None = None
    for _ in range(_MOST_TOKENS):
        try:
            await pull()
        except (EngineFault, NotFound) as error:
            if _REFUSED.search(str(error)) is None:
                raise
            if not isinstance(error, BrokenOff):
                return error
            late = error
        else:
            return None
    raise ExplainedPullFault(
        f"{late} (the registry let the pull in with {origin} and refused it afterwards, {_MOST_TOKENS} "
        "times: the tokens that it gives end too soon, or the right to this image was taken away; have its "
        "administrator look, or an operator give the cluster other credentials with `kohakuriver docker "
        "login`)"
    )
