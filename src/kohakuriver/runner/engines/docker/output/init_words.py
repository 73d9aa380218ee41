"""What programs of ours say on a workload's standard error before its command runs: pure.

The engine's init says there why it cannot execute the command, and the program that goes to the working
directory why it cannot. That is no output of the user's: it is held back, and once the end is known it
becomes the reason of the end.
"""

import re

from kohakuriver.models.spec.task_files import SCRIPT_PLACE

_BEGINNINGS = (b"[FATAL tini (", b"nsenter: can't ")
_INIT = re.compile(rb"\[FATAL tini \(\d+\)\] exec [^\n]* failed: [^\n]*\n?")
_FOLDER = re.compile(rb"nsenter: (can't [^\n]+)\n?")
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_NO_FOLDER = 1
_MOST_BYTES = 8192


class InitWords:
    """Takes standard error from its beginning and passes on what cannot be words of ours."""

    def __init__(self) -> None:
        self._held = b""
        self._is_over = False

    def pass_on(self, pieces: list[bytes]) -> list[bytes]:
        """Return what of it is the user's for certain; in order, and nothing is lost."""
        if self._is_over:
            return pieces
        self._held += b"".join(pieces)
        return [] if _may_be_ours(self._held) else [self._release()]

    def end(self, exit_code: int) -> bytes:
        """Return what was held back and is the user's after all, now that the exit status is known."""
        return b"" if self.reason(exit_code, "") else self._release()

    def reason(self, exit_code: int, command: str) -> str | None:
        """Say why the command could not be executed, where that is what the end of the workload means.

        The command is a child of the engine's init, so the engine itself calls such a start a success.
        """
        if exit_code == _NO_FOLDER and (said := _FOLDER.fullmatch(self._held)):
            return f"the working directory cannot be used: {said[1].decode(errors='replace')[:500]}"
        if exit_code not in (_NOT_EXECUTABLE, _NOT_FOUND) or _INIT.fullmatch(self._held) is None:
            return None
        return not_found(command) if exit_code == _NOT_FOUND else not_executable(command)

    def _release(self) -> bytes:
        self._is_over = True
        held, self._held = self._held, b""
        return held


def not_found(command: str) -> str:
    if command == SCRIPT_PLACE:
        return "the image does not hold what the first line of the script names"
    return f"the command {command!r} was not found in the image"


def not_executable(command: str) -> str:
    return f"the command {command!r} cannot be executed: permission denied"


def _may_be_ours(said: bytes) -> bool:
    """Ours are one line, after which nothing comes."""
    if len(said) > _MOST_BYTES or b"\n" in said[:-1]:
        return False
    return any(said.startswith(words) or words.startswith(said) for words in _BEGINNINGS)
