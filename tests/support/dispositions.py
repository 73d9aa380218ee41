"""Signals that whoever started this process has had ignored.

A shell without job control, such as a script's or make's, starts what stands before a `&` with SIGINT and
SIGQUIT ignored, and `nohup` does so with SIGHUP. Every process below inherits that, down to those in the
containers of a daemon, where nobody can tell any more why Ctrl-C does nothing.
"""

import signal

_USUALLY_HEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def let_children_hear() -> None:
    """Have the processes that this one starts from now on hear all signals; it ignores what it did."""
    for number in _USUALLY_HEARD:
        if signal.getsignal(number) is signal.SIG_IGN:
            # A new program does not inherit handlers, only what is ignored.
            signal.signal(number, lambda *_: None)
