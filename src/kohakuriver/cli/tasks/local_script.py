"""A script of this machine that a task is to run: which first word of a command means one, what it holds."""

import os
import stat

import click

from kohakuriver.models.spec.task_files import MAX_FILE_BYTES

_MARK = b"#!"


def local_script(word: str, wanted: bool | None) -> bytes | None:
    """Return the content of the script that the word names; None: it is a program of the container.

    `wanted` None: it means a script if it is a plain name, with no slash in it, of a file of this folder that
    begins with `#!`. A path has always been the container's. Raises UsageError for what cannot be sent.
    """
    if wanted is False or (wanted is None and (not word or "/" in word)):
        return None
    try:
        with open(word, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError(0, "it is no file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if wanted is None:
            return None
        raise click.UsageError(f"the script {word} cannot be read: {error.strerror}") from error
    if not content.startswith(_MARK):
        if wanted is None:
            return None
        raise click.UsageError(
            f"{word} does not begin with a line that says what runs it; write one, such as #!/bin/sh"
        )
    if len(content) > MAX_FILE_BYTES:
        raise click.UsageError(
            f"the script {word} is larger than {MAX_FILE_BYTES >> 10} KiB; put it into shared storage and "
            "run it from there"
        )
    return content


def _without_waiting(path: str, flags: int) -> int:
    """A pipe of that name would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
