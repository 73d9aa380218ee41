"""Who goes first where a machine runs out of memory: never a daemon of ours before a workload.

The kernel ends the process with the highest score, to which `oom_score_adj` adds. A daemon takes a low one
for itself, where it may (with CAP_SYS_RESOURCE, or told so by systemd). What it starts inherits that, so
programs that do some work for it are started by `expendable`. Workloads have a high one from their engine.
"""

from pathlib import Path

import structlog

DAEMON_SCORE_ADJ = -500
_OWN = Path("/proc/self/oom_score_adj")
# `$0` is the file; a score that somebody chose above zero stays.
_SCRIPT = '{ read -r score <"$0" && [ "$score" -lt 0 ] && echo 0 >"$0"; } 2>/dev/null; exec "$@"'
_log = structlog.get_logger(__name__)


def protect_this_process(path: Path = _OWN) -> None:
    """Have the kernel prefer other processes; without the right to, all stays as it is."""
    try:
        if int(path.read_text()) > DAEMON_SCORE_ADJ:
            path.write_text(str(DAEMON_SCORE_ADJ))
    except (OSError, ValueError) as error:
        _log.debug("oom_score_not_lowered", error=str(error))


def expendable(*argv: str, path: Path = _OWN) -> list[str]:
    """The words that run a program without the protection of the daemon that starts it."""
    return ["/bin/sh", "-c", _SCRIPT, str(path), *argv]
