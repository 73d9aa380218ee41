"""The one place where errors become a line on standard error and an exit status.

| status | means |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | wrong use |
| 3 | not found |
| 4 | not allowed |
| 5 | host unreachable |
| 78 | bad configuration |
| 126 | a command of `exec` cannot be executed |
| 127 | a command of `exec` is not in the image |
| 130 | ended by Ctrl-C |

`run`, `task wait` and `task submit --wait` end with the task's own status instead.
"""

import io
import os
import sys

import click

from kohakuriver.cli.console.plain_text import neutralised, neutralised_lines
from kohakuriver.models.errors import KohakuRiverError

FAILED = 1
UNREACHABLE = 5
INTERRUPTED = 130
_STDERR = 2
_BY_CODE = {
    "host_unreachable": UNREACHABLE,
    "not_a_host": UNREACHABLE,
    # What shells end with, and `run` too.
    "program_not_executable": 126,
    "program_missing": 127,
}
_BY_HTTP_STATUS = {422: 2, 413: 2, 404: 3, 401: 4, 403: 4}


def run_guarded(command: click.Command, program: str) -> int:
    """Run a command with the process's arguments and return its exit status."""
    _open_standard_streams()
    try:
        status = command.main(prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        print(neutralised_lines(_open_text(told.getvalue())), file=sys.stderr, end="")
        return error.exit_code
    except click.Abort as error:
        return INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else FAILED
    except KohakuRiverError as error:
        first, *others = _open_text(str(error)).splitlines() or [type(error).__name__]
        for line in (f"Error: {first}", *(f"  {line}" for line in others)):
            print(neutralised(line), file=sys.stderr)
        return exit_status_of(error)
    except BrokenPipeError:
        _silence_output()
        return FAILED
    return status if isinstance(status, int) else 0


def _open_text(text: str) -> str:
    """What a user said in a wrong place, and a sentence quotes, may be the token."""
    from kohakuriver.models.secret_texts import without_secrets

    return without_secrets(text, os.environ.get("KOHAKURIVER_TOKEN"))


def exit_status_of(error: KohakuRiverError) -> int:
    """The status that a command ends with on this error."""
    own = getattr(error, "exit_status", None)
    if isinstance(own, int):
        return own
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return _BY_HTTP_STATUS.get(error.http_status, FAILED)


def _open_standard_streams() -> None:
    """Have nothing stand in the place of each standard stream that is closed (`<&-` in a shell).

    Else the next file or connection that is opened would get its number, and be read or written in its place.
    """
    if sys.stdin and sys.stdout and sys.stderr:
        return
    # The lowest number that is free is the one that is given.
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above


def _silence_output() -> None:
    """Point standard output at nothing, or the interpreter complains about the closed pipe when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
