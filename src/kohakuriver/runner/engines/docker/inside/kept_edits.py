"""What the users of a VPS changed in files of ours: told apart, and carried to the next ones; pure.

`/etc/hosts` and its like are mounted into a VPS, so no snapshot has them. What their users made of them
goes along in a label of the snapshot, with what we had written, so that our own lines can be told from
theirs. Whoever can write a snapshot's archive can write the label: what stands in it is only ever the content
of these files of that one VPS.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

MOST_BYTES = 64 << 10
"""Of one file, to be kept in a label: engines give all labels away in each list of images."""
_MOST_LABEL_CHARACTERS = 1 << 20
_TOO_LARGE = "# What stood here was larger than {kib} KiB, and was not kept over the stop of the VPS.\n"


@dataclass(frozen=True, slots=True)
class Edit:
    """A file as we wrote it, and as its users have it; `now` None: it had become too large to be kept."""

    before: bytes
    now: bytes | None

    def put_on(self, text: bytes) -> bytes:
        """The file that is to have our `text`, with what the users did to it."""
        if self.now is None:
            return text + _TOO_LARGE.format(kib=MOST_BYTES >> 10).encode()
        return renewed(self.now, self.before, text)


Edits = Mapping[str, Edit]
"""By the path that a file has in the VPS."""


def renewed(now: bytes, before: bytes, text: bytes) -> bytes:
    """`now`, which was `before` when we wrote it, with our lines as they are in `text`.

    A line of the same names at another address is given that one, also with names that users added to it.
    What users took out stays out.
    """
    ours, wanted = _lines(before), _lines(text)
    gone = [line for line in ours if line not in wanted]
    new = [line for line in wanted if line not in ours]
    moved, lines_moved = _moved(gone, new)
    gone = [line for line in gone if _first_word(line) not in moved]
    new = [line for line in new if line not in lines_moved]
    at_the_end = [] if gone else new
    lines: list[bytes] = []
    for line in _lines(now):
        first = _first_word(line)
        if first in moved:
            lines.append(line.replace(first, moved[first], 1))
        elif line in gone:
            lines += new
            new = []
        else:
            lines.append(line)
    return b"".join(line + b"\n" for line in [*lines, *at_the_end])


def _first_word(line: bytes) -> bytes:
    return line.split()[0] if line.strip() else b""


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _moved(gone: list[bytes], new: list[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """First words that changed with all others the same, and the new lines that they are in."""
    moved, lines = {}, []
    for line in gone:
        words = line.split()
        for other in new:
            others = other.split()
            if words and others and words[1:] == others[1:] and words[0] not in moved:
                moved[words[0]] = others[0]
                lines.append(other)
    return moved, lines


def encode_edits(edits: Edits) -> str:
    """As the value of a label; empty where nothing was changed."""
    if not edits:
        return ""
    parts = {place: (edit.before, _kept(edit.now)) for place, edit in edits.items()}
    return json.dumps({place: [_text(before), _text(now)] for place, (before, now) in parts.items()})


def decode_edits(label: str, places: frozenset[str]) -> dict[str, Edit]:
    """What stands there of these places; nothing for what is no such label."""
    if not label or len(label) > _MOST_LABEL_CHARACTERS:
        return {}
    try:
        found = json.loads(label)
        return {
            place: Edit(_bytes(before) or b"", _kept(_bytes(now)))
            for place, (before, now) in found.items()
            if place in places
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _kept(content: bytes | None) -> bytes | None:
    return content if content is not None and len(content) <= MOST_BYTES else None


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("that is no content of a file") from error
