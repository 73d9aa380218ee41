"""Write docs/events.md, the kinds of events, from models.events.

`python tools/event_kinds.py` writes the file; a unit test compares it with `render()`.
"""

from pathlib import Path

from kohakuriver.models.events import EventKind

PAGE = Path(__file__).resolve().parent.parent / "docs" / "events.md"

_HEAD = """# Events of tasks

Made from `models/events.py` by `tools/event_kinds.py`; do not edit.

What happens to a task is a line of its history: its kind, the number of the attempt (0 before the first
one), the time, and often a detail in words. `GET /api/events` sends these lines as `event: task`, each with a
number that only grows and from which a client goes on (`Last-Event-ID`).

Clients may rely on the kinds: none is renamed or given another meaning. A later version may add some, so pass
over what you do not know. Details are for people and change.

| kind | what has happened |
| --- | --- |
"""


def render() -> str:
    return _HEAD + "".join(f"| `{kind.value}` | {kind.sentence} |\n" for kind in EventKind)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
