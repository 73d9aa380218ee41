"""The named steps at which a test has a daemon die, so that its recovery from each of them is shown.

Rules: a point is armed by the environment of the process, which only tests set, and by no setting; one is
armed at most; the process dies by SIGKILL, as by a power cut, so nothing of it runs on or cleans up.

A step announces itself by an audit event of the interpreter (`sys.audit`). Nobody listens unless a
point is armed, so a step costs some nanoseconds, and nothing needs to be handed to where it is passed.
"""

import itertools
import os
import signal
import sys
from collections.abc import Mapping
from enum import StrEnum

from kohakuriver.models.errors import InvalidInput

VARIABLE = "KOHAKURIVER_CRASH_POINT"
"""`name` or `name:n`: die at the n-th passing (1 if it is not said)."""

_EVENT = "kohakuriver.crash_point"


class CrashPoint(StrEnum):
    """In the order in which a daemon passes them. A name says what has just been done, or is about to be."""

    PRIVATE_FILE_DRAFTED = "private_file_drafted"

    HOST_SCHEMA_MADE = "host.schema_made"
    HOST_SCHEMA_COMMITTED = "host.schema_committed"
    HOST_NODE_ENROLLED = "host.node_enrolled"
    HOST_NODE_REGISTERED = "host.node_registered"
    HOST_HEARTBEAT_APPLIED = "host.heartbeat_applied"
    HOST_TURN_DECIDED = "host.turn_decided"
    HOST_ROWS_WRITTEN = "host.rows_written"
    HOST_TURN_COMMITTED = "host.turn_committed"
    HOST_DISPATCH_WOKEN = "host.dispatch_woken"
    HOST_TURN_ANSWERED = "host.turn_answered"
    HOST_SENDING_ORDERS = "host.sending_orders"
    HOST_ORDERS_DELIVERED = "host.orders_delivered"
    HOST_REPORTS_COMMITTED = "host.reports_committed"
    HOST_STOPPING = "host.stopping"
    HOST_STOPPED = "host.stopped"

    RUNNER_JOURNAL_REPLACED = "runner.journal_replaced"
    RUNNER_SANDBOX_CREATED = "runner.sandbox_created"
    RUNNER_SANDBOX_STARTED = "runner.sandbox_started"
    RUNNER_REGISTERING = "runner.registering"
    RUNNER_REGISTERED = "runner.registered"
    RUNNER_ORDERS_JUDGED = "runner.orders_judged"
    RUNNER_ORDERS_JOURNALLED = "runner.orders_journalled"
    RUNNER_IMAGE_LOADED = "runner.image_loaded"
    RUNNER_IMAGE_TAGGED_ONCE = "runner.image_tagged_once"
    RUNNER_IMAGE_READY = "runner.image_ready"
    RUNNER_SANDBOX_TAKEN = "runner.sandbox_taken"
    RUNNER_FILES_PREPARED = "runner.files_prepared"
    RUNNER_CONTAINER_CREATED = "runner.container_created"
    RUNNER_WORKLOAD_CREATED = "runner.workload_created"
    RUNNER_STARTING_JOURNALLED = "runner.starting_journalled"
    RUNNER_COMMAND_STARTED = "runner.command_started"
    RUNNER_VPS_KEPT = "runner.session_kept"
    RUNNER_RUNNING_JOURNALLED = "runner.running_journalled"
    RUNNER_OUTPUT_WRITTEN = "runner.output_written"
    RUNNER_KILL_SIGNALLED = "runner.kill_signalled"
    RUNNER_END_SEEN = "runner.end_seen"
    RUNNER_END_JOURNALLED = "runner.end_journalled"
    RUNNER_REPORTS_COMMITTED = "runner.reports_committed"
    RUNNER_REMOVING = "runner.removing"
    RUNNER_CONTAINER_REMOVED = "runner.container_removed"
    RUNNER_SANDBOX_RETURNING = "runner.sandbox_returning"
    RUNNER_WORKLOAD_REMOVED = "runner.workload_removed"
    RUNNER_STOPPING = "runner.stopping"


def reach(point: CrashPoint) -> None:
    """Pass a point; does not return from the one that is armed. From any thread."""
    sys.audit(_EVENT, point)


def arm_from(environment: Mapping[str, str]) -> CrashPoint | None:
    """Arm what the environment names, for the rest of the process; only for the composition roots.

    Raises InvalidInput for a name or number that is none.
    """
    wanted = environment.get(VARIABLE, "")
    if not wanted:
        return None
    name, _, number = wanted.partition(":")
    try:
        point, passing = CrashPoint(name), int(number or 1)
    except ValueError as error:
        raise InvalidInput(
            f"{VARIABLE} is {wanted!r}, which names no crash point; it is for tests of this program, unset it"
        ) from error
    _die_at(point, passing)
    return point


def _die_at(point: CrashPoint, passing: int) -> None:
    passings = itertools.count(1)  # `next` is atomic, so that threads may pass together

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if event == _EVENT and arguments[0] is point and next(passings) == passing:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(listen)
