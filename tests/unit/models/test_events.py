"""Kinds of events: each has its sentence on the page, and whatever is told by its name has a kind."""

import importlib.util
from pathlib import Path

import pytest

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.transitions import TRANSITIONS

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_of_events_is_made_from_their_kinds() -> None:
    spec = importlib.util.spec_from_file_location("event_kinds", ROOT / "tools" / "event_kinds.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert page == tool.render(), "run: python tools/event_kinds.py"
    for kind in EventKind:
        assert f"| `{kind.value}` | {kind.sentence} |" in page


@pytest.mark.parametrize("kind", EventKind)
def test_a_kind_says_what_has_happened_in_one_or_two_sentences(kind: EventKind) -> None:
    assert kind.sentence.endswith(".")
    assert "|" not in kind.sentence
    assert kind.name.lower() == kind.value == str(kind)
    assert len(kind.value) <= 32, "the column of the store"


@pytest.mark.parametrize("state", sorted({state for after in TRANSITIONS.values() for state in after}))
def test_every_step_is_told_by_the_name_of_the_state(state: TaskState) -> None:
    assert EventKind.of_step(state).value == state.value


@pytest.mark.parametrize("order", OrderKind)
def test_every_order_can_be_refused(order: OrderKind) -> None:
    assert EventKind.of_refusal(order).value == f"{order.value}_refused"
