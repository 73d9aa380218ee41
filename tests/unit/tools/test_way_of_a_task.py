"""The way of a task in the map is one that the code goes, and it is short."""

import pytest
from tools.shape.sources import Source
from tools.way_of_a_task import MAP, MAX_FILES, ROOT, program, way_of_a_task

_FILES = {
    "host.api": "from kohakuriver.host import queue\n\n\ndef submit():\n    queue.put()\n",
    "host.queue": "def put():\n    _write()\n\n\ndef _write():\n    pass\n",
    "runner.agent": "class Agent:\n    def take(self):\n        pass\n",
}
_SOURCES = {
    name: Source(f"src/kohakuriver/{name.replace('.', '/')}.py", text) for name, text in _FILES.items()
}
_BEFORE = "# Map\n\n## Parts\n\n1. `host.nothing.at_all`\n\n## The way of a task\n\n"


def test_the_way_of_a_task_is_short_and_whole() -> None:
    way = way_of_a_task((ROOT / MAP).read_text(), program())
    assert way.faults == ()
    assert len(way.files) <= MAX_FILES


def test_a_file_counts_once_and_what_begins_an_item_need_not_be_called() -> None:
    text = _BEFORE + (
        "1. In: `host.api.submit`, then\n   `host.queue.put`, `host.queue._write`.\n"
        "2. Over the wire: `runner.agent.Agent.take`.\n\n## Next\n\n`host.queue.missing`\n"
    )
    way = way_of_a_task(text, _SOURCES)
    assert way.files == tuple(_SOURCES[name].path for name in ("host.api", "host.queue", "runner.agent"))
    assert way.faults == ()


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        (
            "1. `host.api.submit` `host.queue._write`\n",
            "host.queue._write is not called by what is named before",
        ),
        ("1. `host.api.submit` `runner.agent.Agent.take`\n", "runner.agent.Agent.take is not called"),
        ("1. `host.api.enter`\n", "there is no host.api.enter"),
        ("1. `runner.agent.Agent.give`\n", "there is no runner.agent.Agent.give"),
        ("1. Nothing is named.\n", "not there"),
    ],
)
def test_a_list_with_a_gap_is_no_way(items: str, fault: str) -> None:
    (found,) = way_of_a_task(_BEFORE + items, _SOURCES).faults
    assert fault in found
