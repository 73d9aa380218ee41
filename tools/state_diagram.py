"""Write docs/design/task-states.md, the life of a task as a diagram, from the table in models.transitions.

`python tools/state_diagram.py` writes the file; a unit test compares it with `render()`.
"""

from pathlib import Path

from kohakuriver.models.enums import TaskState
from kohakuriver.models.transitions import ENDED, HOLDING, QUEUED, TRANSITIONS, VPS_ONLY

PAGE = Path(__file__).resolve().parent.parent / "docs" / "design" / "task-states.md"

_HEAD = """# States of a task

Made from the table in `models/transitions.py` by `tools/state_diagram.py`; do not edit.
Steps marked `VPS` are open only to a VPS. A step that is not here raises.
"""


def render() -> str:
    lines = [_HEAD, "```mermaid", "stateDiagram-v2", "    [*] --> pending", "    [*] --> pending_approval"]
    for before in TaskState:
        for after in TaskState:
            if after in TRANSITIONS[before]:
                note = ": VPS" if (before, after) in VPS_ONLY else ""
                lines.append(f"    {before.value} --> {after.value}{note}")
        if not TRANSITIONS[before]:
            lines.append(f"    {before.value} --> [*]")
    lines += ["```", "", "| state | waits in the queue | holds its share of a node | has ended |"]
    lines.append("| --- | --- | --- | --- |")
    for state in TaskState:
        marks = ("yes" if state in group else "" for group in (QUEUED, HOLDING, ENDED))
        lines.append(f"| `{state.value}` | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
