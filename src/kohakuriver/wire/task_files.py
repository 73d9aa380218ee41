"""What an order to run a task says of its input and its script."""

from typing import Annotated

import msgspec
from msgspec import Meta

from kohakuriver.models.spec.task_files import MAX_FILE_BYTES

_Content = Annotated[bytes, Meta(max_length=MAX_FILE_BYTES)]


class TaskFiles(msgspec.Struct, frozen=True, kw_only=True):
    """`script`: is run in place of `command`; `streams`: its input comes by a stream, and not as `stdin`.

    The command stands here and not in the order, so that a runner of a version that knows of no input refuses
    the order rather than run the command without it.
    """

    command: str
    stdin: _Content | None = None
    script: _Content | None = None
    streams: bool = False
