"""Nonsense at every input is refused with a sentence that helps, and nothing changes."""

from typing import Any

import pytest

from support.cluster.cluster import Cluster

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(120),
]

TASK = {"task_type": "command", "command": "true"}

NONSENSE: dict[str, dict[str, Any]] = {
    "unknown node": {"targets": ["no-such-node"]},
    "unknown NUMA node": {"targets": ["kr-n1:77"]},
    "unknown GPU": {"targets": ["kr-n1::42"]},
    "target with a path": {"targets": ["../etc"]},
    "negative cores": {"required_cores": -1},
    "fractions of a byte": {"required_memory_bytes": 0.5},
    "memory as text": {"required_memory_bytes": "lots"},
    "no command": {"command": ""},
    "NUL in the command": {"command": "a\x00b"},
    "NUL in an argument": {"arguments": ["a\x00b"]},
    "environment with ../": {"container_name": "../../etc/passwd"},
    "environment with newline": {"container_name": "a\nb"},
    "environment with option": {"container_name": "--privileged"},
    "image with a scheme": {"registry_image": "file:///etc/shadow"},
    "image with a space": {"registry_image": "a b"},
    "mount with comma": {"additional_mounts": ["/tmp:/x,readonly=off"]},
    "mount with dots": {"additional_mounts": ["/tmp/../etc:/x"]},
    "mount that is relative": {"additional_mounts": ["tmp:/x"]},
    "variable with equals": {"env_vars": {"A=B": "c"}},
    "name with newline": {"name": "a\nb"},
    "name with ../": {"name": "../x"},
    "priority beyond all bounds": {"priority": 10**9},
    "a VPS": {"task_type": "vps"},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_in_a_submission_is_refused_with_a_sentence(cluster: Cluster, what: str) -> None:
    before = [task["task_id"] for task in cluster.api("GET", "/api/tasks")]
    answer = cluster.client.post("/api/submit", json=TASK | NONSENSE[what])
    assert answer.status_code in (400, 404, 422), answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert len(detail.split()) > 3
    assert [task["task_id"] for task in cluster.api("GET", "/api/tasks")] == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"\xff\xfe{}", 422),
        (b'{"command": "\xc3"}', 422),
        (b'{"x":"' + b"a" * (10 << 20) + b'"}', 413),
    ],
)
def test_a_body_that_is_no_json_or_too_large_is_refused(cluster: Cluster, body: bytes, status: int) -> None:
    answer = cluster.client.post("/api/submit", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-m", "abc", "--", "true"),
        ("run", "-c", "-1", "--", "true"),
        ("run", "-t", "bad target", "--", "true"),
        ("task", "submit", "--env", "1=two", "--", "true"),
        ("task", "submit", "--mount", "relative", "--", "true"),
        ("task", "submit"),
    ],
)
def test_the_command_line_calls_nonsense_wrong_use(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    done = cluster.cli(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("task", "status", "999999999999999999"), 3),
        (("run", "-t", "no-such-node", "--", "true"), 3),
        (("node", "status", "no-such-node"), 3),
        (("--port", "1", "node", "list"), 5),
    ],
)
def test_exit_statuses_tell_what_was_wrong(cluster: Cluster, arguments: tuple[str, ...], status: int) -> None:
    done = cluster.cli(*arguments)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1
