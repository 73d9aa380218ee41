"""Words that the glossary lists as not used are found where people read, and nowhere else."""

from pathlib import Path

import pytest
from tools.shape.sources import Source
from tools.shape.words import GLOSSARY, unwanted_words

_GLOSSARY = Source(GLOSSARY, (Path(__file__).parents[3] / GLOSSARY).read_text(encoding="utf-8"))
_ANY = "src/kohakuriver/host/control/loop.py"
# Put together here, so that this file does not break the rule that it tests.
_OLD, _LONELY, _GRANTED = "sess" + "ion", "al" + "one", "wi" + "sh"


def _sentences(path: str, text: str) -> list[str]:
    return [fault.sentence for fault in unwanted_words([_GLOSSARY, Source(path, text)]) if fault.path == path]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (_ANY, f'"""What a {_OLD} has."""\n'),
        (_ANY, f"x = 1  # of its {_OLD}s\n"),
        (_ANY, f"raise Conflict(f'{_OLD} {{task_id}} runs')\n"),
        (_ANY, f"raise Conflict('the {_OLD} runs')\n"),
        (_ANY, f"def new_{_GRANTED}(): ...\n"),
        (_ANY, f"class Exec{_GRANTED.title()}: ...\n"),
        (_ANY, f"def f({_GRANTED}): ...\n"),
        (_ANY, f'"""For root {_LONELY}."""\n'),
        ("tests/unit/test_x.py", f"def test_a_{_GRANTED}_is_granted(): ...\n"),
        ("docs/vps.md", f"A {_OLD} is a container.\n"),
        ("README.md", f"For root {_LONELY}.\n"),
        ("docs/operating.md", "The host is " + "away.\n"),
    ],
)
def test_such_a_word_is_found_with_what_is_said_instead(path: str, text: str) -> None:
    (sentence,) = _sentences(path, text)
    assert "is not used here, but " in sentence


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (_ANY, f'"""`{_OLD}` of a record, and a terminal {_OLD}; others are left {_LONELY}."""\n'),
        (_ANY, f"audit = '{_OLD}.create'\nspec.{_OLD} = None\n"),
        (_ANY, f"option = '--{_OLD}'\n"),
        ("src/kohakuriver/runner/terminals/numbered_shells.py", f'"""The {_OLD}s of a node."""\n'),
        (_ANY, "from kohakuriver.front_door import prove\n"),
        ("docs/vps.md", f"`connect --{_OLD} S` comes back:\n\n```\nconnect lab --{_OLD} 7\n```\n"),
        ("bench/results/x.json", f'{{"section": "{_OLD} of one"}}\n'),
    ],
)
def test_terms_of_the_field_and_fixed_names_pass(path: str, text: str) -> None:
    assert _sentences(path, text) == []


def test_the_glossary_lists_them_without_breaking_its_own_rule() -> None:
    assert list(unwanted_words([_GLOSSARY])) == []
