"""A command line that was sent as one text, as earlier clients do and people type it between quotes.

Plain words become the program and its arguments, which also works in images that hold no shell. A line with
signs that mean something to a shell is one for `/bin/sh`. With arguments beside it, a command is the name of
a program, whatever is in it.
"""

import re

from kohakuriver.models.errors import InvalidInput

_BLANKS = " \t\n"
_SHELL = "/bin/sh"
_SIGNS = re.compile(r"""[|&;<>()$`\\"'*?\[\n]|(?:^|[ \t])[~#!{}]""")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def words_of(command: str, arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return what is run for the two: a program and its arguments."""
    if arguments or not any(blank in command for blank in _BLANKS):
        return command, arguments
    words = command.split()
    if not words:
        raise InvalidInput("command is blank; name a program, or send a command line", "command")
    if _SIGNS.search(command) or _ASSIGNMENT.match(words[0]):
        return _SHELL, ("-c", command)
    return words[0], tuple(words[1:])
