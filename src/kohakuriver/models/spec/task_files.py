"""What a task brings along from its submitter's machine: its standard input, and a script that it runs."""

from dataclasses import dataclass, field, replace

MAX_FILE_BYTES = 256 << 10
"""The most of either that is stored with a task. More input is streamed while the task runs."""

SCRIPT_PLACE = "/.kohakuriver-script"
"""Where a task's script lies in its container."""

INPUT_CUT_OFF = "its standard input was cut off"
"""What the message of a task begins with that did not get all of its input."""

ABSENCE_SECONDS = 600
"""For how long a task waits for who streams its input, before it counts as cut off."""


@dataclass(frozen=True, slots=True)
class TaskFile:
    """`size` is that of the content, which lists leave out. `streams`: it is sent while the task runs."""

    content: bytes = field(repr=False, default=b"")
    size: int = 0
    streams: bool = False

    @classmethod
    def of(cls, content: bytes) -> "TaskFile":
        return cls(content, len(content))

    @property
    def is_whole(self) -> bool:
        return not self.streams and len(self.content) == self.size

    def without_content(self) -> "TaskFile":
        return replace(self, content=b"")
