"""What a runner says of its machine at each of its starts: taken in, judged, and answered.

Rules: a difference in what all work needs is a fault, which closes the node; one in what some work needs is a
notice, and keeps only that work away. Each names the runner's value and this host's.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace

from kohakuriver.host.control.nodes.node import LiveNode, shared_storage_of
from kohakuriver.host.control.turn import Turn
from kohakuriver.wire.bounds import cut
from kohakuriver.wire.messages import SESSIONS, Registration, RegistrationAnswer

Settings = Mapping[str, object]
"""By name, those that a runner must have as its host has them."""

_OVERLAY, _OVERLAY_ENABLED = "OVERLAY_", "OVERLAY_ENABLED"
_SHOWN_LENGTH = 200
"""So much of a value is shown; what a node says may be longer."""


def register(turn: Turn, registration: Registration, address: str, ours: Settings) -> RegistrationAnswer:
    """Take in what a runner says of its machine at its start, and say what does not match `ours`."""
    node = turn.known_node(registration.hostname)
    shared = shared_storage_of(registration, turn.state.cluster_id)
    if SESSIONS in registration.capabilities and not _uses_offer(node, registration):
        # An offer stands until it is used, so that old registrations cannot take it from the real one.
        node.offered = node.offered or secrets.token_urlsafe(18)
        return RegistrationAnswer(
            cluster_id=turn.state.cluster_id, shared_storage=shared, known=False, session=node.offered
        )
    faults = list(_contradictions(registration))
    if shared == "same":
        faults += _path_faults(registration.settings, ours)
    if registration.boot_id != (node.registration.boot_id if node.registration else None):
        node.beat_revision = -1
        node.accepted = {}
    node.online = False
    node.last_beat = turn.monotonic
    node.session, node.offered = registration.session, ""
    node.differences = tuple(_overlay_differences(registration.settings, ours))
    turn.put_node(node, replace(node.row, registration=registration, address=address, faults=tuple(faults)))
    return RegistrationAnswer(
        cluster_id=turn.state.cluster_id,
        shared_storage=shared,
        faults=faults,
        notices=list(node.differences),
        session=node.session,
    )


def _uses_offer(node: LiveNode, registration: Registration) -> bool:
    """Whether it answers the offer that was made last: one that was recorded and is sent again cannot."""
    return bool(node.offered) and secrets.compare_digest(node.offered, registration.session)


def _contradictions(registration: Registration) -> Iterator[str]:
    """What in a registration would let work be given out wrongly."""
    cpus = [cpu for numa in registration.numa_topology for cpu in numa.cpus]
    if len(cpus) != len(set(cpus)):
        yield "its NUMA nodes share CPUs"
    indices = [gpu.gpu_id for gpu in registration.gpu_info]
    if len(indices) != len(set(indices)):
        yield "two of its GPUs have the same index"


def _path_faults(told: Settings, ours: Settings) -> Iterator[str]:
    """Its folder is ours, and lies elsewhere there: paths that this host gives to tasks would lead nowhere.

    A runner of an earlier version does not say where it is.
    """
    theirs, here = told.get("SHARED_DIR"), ours.get("SHARED_DIR")
    if not isinstance(theirs, str) or not isinstance(here, str):
        return
    if os.path.normpath(theirs) != os.path.normpath(here):
        yield f"{_both_values('SHARED_DIR', theirs, here)}; set both alike"


def _overlay_differences(told: Settings, ours: Settings) -> Iterator[str]:
    """One for each setting of the overlay that is not as here; none where it is off at both ends."""
    if not (told.get(_OVERLAY_ENABLED) or ours.get(_OVERLAY_ENABLED)):
        return
    for name, here in ours.items():
        if name.startswith(_OVERLAY) and name in told and not _alike(told[name], here):
            values = _both_values(name, told[name], here)
            yield f"{values}; until both are set alike it gets no work that needs the overlay"


def _alike(theirs: object, here: object) -> bool:
    """True is no 1 here: the rules for settings tell them apart as well."""
    return type(theirs) is type(here) and theirs == here


def _both_values(name: str, theirs: object, here: object) -> str:
    """As Python source, so that no character of a node's text does anything where it is shown."""
    return f"its {name} is {cut(repr(theirs), _SHOWN_LENGTH)}, and that of the host is {here!r}"
