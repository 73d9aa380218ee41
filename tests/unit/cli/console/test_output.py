"""What the command line prints: columns that line up, and no name or message that steers a terminal."""

import json
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.cli.console.output import Facts, Table, json_text, view_text
from kohakuriver.cli.console.plain_text import display_width, neutralised
from kohakuriver.cli.nodes.commands import node_facts, node_table
from kohakuriver.cli.tasks.views import exit_status_of, task_facts, task_table, waiting_sentence
from kohakuriver.cli.vps.views import snapshot_table, vps_table
from kohakuriver.client.records import NodeRecord, TaskRecord
from kohakuriver.client.vps_records import SnapshotRecord, VpsRecord
from kohakuriver.models.enums import NodeStatus
from support.clients.stub_host import task_record

NOW = datetime(2026, 11, 20, 10, 5, tzinfo=UTC)
GOLDEN_TASKS = """\
ID                   NAME    STATE       NODE   CORES   MEMORY   GPUS   AGE     TIME    COMMAND
310000000000004242   -       completed   n1     1       256M     -      5m00s   2s      echo 'hello world'
310000000000004243   train   running     n1     1       256M     0,1    5m00s   4m59s   nvidia-smi -L
310000000000004244   -       pending     -      1       -        -      5m00s   -       '日本' {}…""".format(
    "x" * 54
)
ATTACK = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\x9b31m"


def task(**fields: Any) -> TaskRecord:
    return msgspec.convert(task_record(**fields), TaskRecord)


def test_the_task_table() -> None:
    tasks = [
        task(),
        task(
            task_id="310000000000004243",
            name="train",
            status="running",
            completed_at=None,
            required_gpus=[0, 1],
            command="nvidia-smi",
            arguments=["-L"],
        ),
        task(
            task_id="310000000000004244",
            status="pending",
            started_at=None,
            completed_at=None,
            assigned_node=None,
            required_memory_bytes=0,
            command="日本",
            arguments=["x" * 100],
        ),
    ]
    assert view_text(task_table(tasks, compact=False, now=NOW)) == GOLDEN_TASKS


def test_the_compact_task_table() -> None:
    assert view_text(task_table([task()], compact=True)).splitlines() == [
        "ID         STATE       NODE   COMMAND",
        "00004242   completed   n1     echo 'hello world'",
    ]


def test_no_tasks_is_a_sentence() -> None:
    assert view_text(task_table([], compact=False)) == "No tasks."


def test_a_waiting_task_shows_the_reason_of_each_node() -> None:
    waiting = task(
        status="pending",
        assigned_node=None,
        exit_code=None,
        started_at=None,
        completed_at=None,
        pending_reasons=[{"node": "n1", "reason": "4 cores wanted, 2 of 2 free"}],
    )
    assert view_text(task_facts(waiting, NOW)).splitlines() == [
        "Task          310000000000004242",
        "State         pending",
        "Not on n1     4 cores wanted, 2 of 2 free",
        "Command       echo 'hello world'",
        "Environment   kohakuriver-base",
        "Cores         1",
        "Memory        256M",
        "Owner         admin",
        "Submitted     2026-11-20 10:00:00 UTC (5m00s ago)",
    ]
    assert "n1: 4 cores wanted, 2 of 2 free" in waiting_sentence(waiting)


def test_the_node_table() -> None:
    nodes = [
        NodeRecord(
            hostname="n1",
            status=NodeStatus.ONLINE,
            total_cores=4,
            cores_used=1,
            memory_total_bytes=8 << 30,
            memory_used_by_tasks_bytes=256 << 20,
            cpu_percent=12.4,
            memory_percent=50,
            last_heartbeat=NOW,
            faults=["the disk is full", "no engine"],
        ),
        NodeRecord(hostname="n2", status=NodeStatus.PENDING, fingerprint="SHA256:abc"),
    ]
    nodes = msgspec.convert(msgspec.to_builtins(nodes), list[NodeRecord])
    assert view_text(node_table(nodes, NOW)).splitlines() == [
        "NODE   STATE     CORES   MEMORY    GPUS   CPU   MEM   TEMP   SEEN   REMARK",
        "n1     online    1/4     256M/8G   -      12%   50%   -      0s     the disk is full (and 1 more)",
        "n2     pending   0/0     0B/-      -      -     -     -      -      waits for approval, SHA256:abc",
    ]
    assert "Fault" in view_text(node_facts(nodes[0], NOW))


def test_the_vps_table() -> None:
    own: dict[str, Any] = {"task_type": "vps", "name": "lab", "status": "running", "required_gpus": [0, 1]}
    records = [
        msgspec.convert(task_record(**own, ssh_key_mode="generate", address="172.30.0.9"), VpsRecord),
        msgspec.convert(
            task_record(status="pending", assigned_node=None, required_memory_bytes=0), VpsRecord
        ),
    ]
    table = view_text(vps_table(records, NOW))
    assert [" ".join(line.split()) for line in table.split("\n")] == [
        "ID NAME STATE NODE ADDRESS CORES MEMORY GPUS SSH OWNER AGE",
        "310000000000004242 lab running n1 172.30.0.9 1 256M 0,1 generate admin 5m00s",
        "310000000000004242 - pending - - 1 - - - admin 5m00s",
    ]
    assert "vps create" in view_text(vps_table([], NOW))


def test_the_snapshot_table() -> None:
    snapshots = [
        SnapshotRecord(
            timestamp=1795169100, created_at=NOW, message="before the upgrade", size_bytes=3 << 29
        ),
        SnapshotRecord(timestamp=1795168800),
    ]
    assert view_text(snapshot_table(snapshots, NOW)).split("\n") == [
        "TIME         CREATED                               SIZE   MESSAGE",
        "1795169100   2026-11-20 10:05:00 UTC (0s ago)      1.5G   before the upgrade",
        "1795168800   2026-11-20 10:00:00 UTC (5m00s ago)   -",
    ]


def test_wide_characters_keep_the_columns_in_line() -> None:
    lines = view_text(Table(("A", "B"), [("日本", "x"), ("abcd", "y")])).splitlines()
    assert {display_width(line.rstrip("xyB")) for line in lines} == {7}


def test_names_and_messages_cannot_steer_the_terminal() -> None:
    for text in (
        view_text(task_table([task(name=ATTACK, command=ATTACK)], compact=False, now=NOW)),
        view_text(task_facts(task(error_message=ATTACK, owner=ATTACK), NOW)),
        view_text(Facts([("Fault", ATTACK)])),
        neutralised(ATTACK),
        json_text({"name": ATTACK}),
    ):
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "owned" in text


@given(st.text(max_size=40))
def test_neutralised_text_is_printable_and_unchanged_where_it_was(text: str) -> None:
    safe = neutralised(text)
    assert safe.isprintable()
    assert safe == text or not text.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_json_is_the_same_data_without_a_control_character(raw: object, one_line: bool) -> None:
    text = json_text(raw, one_line=one_line)
    assert json.loads(text) == raw
    assert all(char.isprintable() or (char == "\n" and not one_line) for char in text)


def test_colour_stays_out_unless_it_is_asked_for() -> None:
    table = Table(("STATE", "X"), [("running", "1")], state_column=0)
    assert "\x1b" not in view_text(table)
    assert click.unstyle(view_text(table, colour=True)) == view_text(table)
    assert "\x1b[32mrunning" in view_text(table, colour=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "completed"}, 0),
        ({"status": "failed", "exit_code": 3}, 3),
        ({"status": "failed", "exit_code": 137}, 137),
        ({"status": "failed", "exit_code": None}, 1),
        ({"status": "failed", "exit_code": 0}, 1),
        ({"status": "failed", "exit_code": 256}, 1),
        ({"status": "killed", "exit_code": 143}, 137),
        ({"status": "killed_oom", "exit_code": 137}, 137),
        ({"status": "rejected", "exit_code": None}, 1),
        ({"status": "lost", "exit_code": None}, 1),
    ],
)
def test_the_exit_status_of_an_end(fields: dict[str, object], expected: int) -> None:
    assert exit_status_of(task(**fields)) == expected
