"""`--watch`: the same records again and again until Ctrl-C."""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kohakuriver.cli.console.output import Records, show
from kohakuriver.cli.console.progress import StatusLine

F = TypeVar("F", bound=Callable[..., Any])

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def watch_option(function: F) -> F:
    """Give a command `--watch [SECONDS]`; it arrives as `watch`, None where it was not asked for."""
    option = click.option(
        "--watch",
        type=click.FloatRange(0.1, 3600),
        is_flag=False,
        flag_value=2.0,
        metavar="[SECONDS]",
        help="Show again every so many seconds (2 if none are given) until Ctrl-C.",
    )
    return option(function)


def show_repeatedly(collect: Callable[[], Records], output: str, watch: float | None) -> None:
    """Show what `collect` gives, once, or every `watch` seconds; JSON then comes as one line each time.

    A host that was reached and restarts is waited for.
    """
    if watch is None:
        show(collect(), output)
        return
    from kohakuriver.client.errors import TRANSIENT
    from kohakuriver.client.waiting import Patience

    screen = output == "table" and sys.stdout.isatty()
    line, patience = StatusLine(), Patience(reached=False)
    while True:
        try:
            records = collect()
        except TRANSIENT as error:
            line.clear()
            patience.bear(error)
            line.show("the host does not answer; trying again")
            continue
        patience.reset()
        line.clear()
        if screen:
            sys.stdout.write(_CLEAR)
        elif output == "yaml":
            print("---")
        show(records, output, one_line=True)
        sys.stdout.flush()
        time.sleep(watch)
