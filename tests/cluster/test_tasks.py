"""What a user sees of tasks on a real cluster: output, exit statuses, ends of every kind, order, targets."""

import hashlib
import os
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.conftest import BARE_IMAGE
from support.cluster import BIN, Cluster, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]
_NEAR = timedelta(milliseconds=3)


def test_run_keeps_both_streams_apart_and_ends_with_the_commands_status(cluster: Cluster) -> None:
    done = cluster.cli("run", "-c", "1", "-m", "256M", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.returncode) == (b"out\n", 3)
    assert b"err\n" in done.stderr


_TURNS = """
until_told() { while [ ! -e "/shared/$MARK-$1" ]; do sleep 0.05; done; }
echo one; until_told 1; echo two >&2; until_told 2; echo three; until_told 3; echo four >&2; until_told 4
echo five
"""


def test_output_is_shown_in_the_order_and_with_the_times_of_its_writing(cluster: Cluster) -> None:
    """Each line is written once the one before it has been seen, since an engine reads two pipes."""
    mark = uuid.uuid4().hex
    begun = datetime.now(UTC)
    task_id = cluster.submit("sh", "-c", _TURNS, env_vars={"MARK": mark})
    environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
    words, moments, lines = ["one", "two", "three", "four", "five"], [], []
    with subprocess.Popen(
        [BIN / "kohakuriver", "task", "logs", "-f", "--both", "-t", task_id],
        env=environment,
        stdout=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        for number, line in enumerate(following.stdout, start=1):
            lines.append(line.decode().split())
            moments.append(datetime.now(UTC))
            if number == 3:
                so_far = cluster.cli("task", "logs", "--both", task_id)
                assert so_far.stdout == b"one\ntwo\nthree\n"
            (cluster.shared / "shared_data" / f"{mark}-{number}").touch()
    assert [word for _, word in lines] == words
    times = [datetime.fromisoformat(time) for time, _ in lines]
    for before, time, after in zip((begun, *moments), times, moments, strict=False):
        assert before - _NEAR <= time <= after + _NEAR
    since = moments[2].isoformat()
    assert cluster.cli("task", "logs", "--both", "--since", since, task_id).stdout == b"four\nfive\n"
    assert cluster.cli("task", "logs", "--since", since, task_id).stdout == b"five\n"
    assert cluster.cli("task", "logs", "--both", "--tail", "2", task_id).stdout == b"four\nfive\n"


def test_files_of_an_ended_task_say_where_they_are(cluster: Cluster) -> None:
    task_id = cluster.submit("true")
    cluster.finished(task_id)
    done = cluster.cli("cp", f"{task_id}:/shared/result", ".")
    assert done.returncode == 1
    assert b"has ended (completed), and its container is gone" in done.stderr
    assert b"kohakuriver run -t kr-n" in done.stderr
    assert b"/shared" in done.stderr


def test_arguments_reach_the_command_as_they_are(cluster: Cluster) -> None:
    odd = ["two words", "$HOME", "; rm -rf /", "", "ü\n\t*"]
    task_id = cluster.submit("printf", "[%s]", *odd)
    assert cluster.finished(task_id)["status"] == "completed"
    assert cluster.output(task_id) == "".join(f"[{word}]" for word in odd).encode()


def test_a_killed_sleep_is_killed(cluster: Cluster) -> None:
    task_id = cluster.submit("sleep", "600")
    cluster.await_state(task_id, "running")
    assert cluster.client.post(f"/api/kill/{task_id}").status_code == 202
    assert cluster.finished(task_id)["status"] == "killed"


_LAST_WORDS = """
(trap 'sleep 0.3; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done) &
while :; do sleep 0.05; done
"""


def test_a_kill_lets_every_process_end_in_its_own_way(cluster: Cluster) -> None:
    task_id = cluster.submit("sh", "-c", _LAST_WORDS)
    wait_for(lambda: cluster.output(task_id) == b"ready\n", "its output")
    assert cluster.cli("task", "kill", task_id).returncode == 0
    assert cluster.finished(task_id)["status"] == "killed"
    assert cluster.output(task_id) == b"ready\nsaved\n"


def test_what_does_not_end_within_its_grace_is_killed(cluster: Cluster) -> None:
    deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    task_id = cluster.cli("task", "submit", "--grace", "1", "--", "sh", "-c", deaf).stdout.decode().strip()
    wait_for(lambda: cluster.output(task_id) == b"ready\n", "its output")
    assert cluster.cli("task", "kill", task_id).returncode == 0
    assert cluster.finished(task_id)["status"] == "killed"


def test_a_signal_is_heard_and_the_signal_kill_ends_a_task_at_once(cluster: Cluster) -> None:
    heard = "trap 'echo heard' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    task_id = cluster.submit("sh", "-c", heard, grace_seconds=600)
    wait_for(lambda: cluster.output(task_id) == b"ready\n", "its output")
    assert cluster.cli("task", "kill", "--signal", "SIGUSR1", task_id).returncode == 0
    wait_for(lambda: cluster.output(task_id) == b"ready\nheard\n", "its output")
    assert cluster.cli("task", "kill", task_id).returncode == 0
    assert cluster.cli("task", "kill", "--signal", "KILL", task_id).returncode == 0
    assert cluster.finished(task_id)["status"] == "killed"


def test_a_memory_hog_is_killed_oom(cluster: Cluster) -> None:
    hog = "x=a; while :; do x=$x$x$x$x; done"
    task_id = cluster.submit("sh", "-c", hog, required_memory_bytes=32 << 20)
    record = cluster.finished(task_id)
    assert record["status"] == "killed_oom"


def test_a_child_that_is_killed_for_memory_is_mentioned_and_its_parent_is_not(cluster: Cluster) -> None:
    hog = "x=a; while :; do x=$x$x$x$x; done"
    argv = ("run", "-m", "32M", "--", "sh", "-c", f"sh -c '{hog}'; exit 5")
    done = cluster.cli(*argv)
    assert done.returncode == 5
    assert b"the kernel ended a process in it" in done.stderr
    task_id = cluster.submit("sh", "-c", f"sh -c '{hog}'; exit 0", required_memory_bytes=32 << 20)
    record = cluster.finished(task_id)
    assert (record["status"], record["exit_code"]) == ("completed", 0)
    assert "the kernel ended a process in it" in record["error_message"]


def test_a_command_that_kills_itself_has_failed_with_137_and_not_by_oom(cluster: Cluster) -> None:
    record = cluster.finished(cluster.submit("sh", "-c", "kill -9 $$"))
    assert (record["status"], record["exit_code"]) == ("failed", 137)


def test_a_command_that_is_not_there_reads_the_same_everywhere_and_its_stderr_is_empty(
    cluster: Cluster,
) -> None:
    sentence = "the command 'no-such-program' was not found in the image"
    record = cluster.finished(cluster.submit("no-such-program"))
    assert (record["status"], record["exit_code"]) == ("failed", 127)
    assert record["error_message"] == f"exit status 127: {sentence}"
    assert cluster.output(record["task_id"], "stderr") == b""
    done = cluster.cli("run", "--", "no-such-program")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (127, b"", 1)
    assert sentence.encode() in done.stderr
    task_id = cluster.submit("sleep", "600")
    try:
        cluster.await_state(task_id, "running")
        done = cluster.cli("exec", task_id, "--", "no-such-program")
        assert (done.returncode, done.stdout, done.stderr) == (127, b"", f"Error: {sentence}\n".encode())
        done = cluster.cli("exec", task_id, "--", "/etc")
        assert (done.returncode, b"cannot be executed" in done.stderr) == (126, True)
    finally:
        cluster.client.post(f"/api/kill/{task_id}")


def test_100_mb_of_output_arrive_byte_for_byte(cluster: Cluster) -> None:
    size = 100 << 20
    script = f"head -c {size} /dev/urandom | tee /shared/blob"
    task_id = cluster.submit("sh", "-c", script)
    record = cluster.finished(task_id, seconds=180)
    assert (record["status"], record["stdout_bytes"]) == ("completed", size)
    written = cluster.shared / "shared_data" / "blob"
    expected = hashlib.sha256(written.read_bytes()).hexdigest()
    written.unlink()
    digest = hashlib.sha256()
    with cluster.client.stream("GET", f"/api/tasks/{task_id}/stdout") as answer:
        for chunk in answer.iter_bytes():
            digest.update(chunk)
    assert digest.hexdigest() == expected


def test_a_container_without_a_shell_runs(cluster: Cluster) -> None:
    tar = subprocess.run(
        ["tar", "--dereference", "-c", "-C", "/bin", "busybox"], capture_output=True, check=True
    ).stdout
    subprocess.run(["docker", "import", "-", BARE_IMAGE], input=tar, capture_output=True, check=True)
    task_id = cluster.submit("/busybox", "echo", "no shell here", registry_image=BARE_IMAGE)
    assert cluster.finished(task_id)["status"] == "completed"
    assert cluster.output(task_id) == b"no shell here\n"


def _interval(record: dict[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(record["started_at"]), datetime.fromisoformat(record["completed_at"])


def test_fifty_one_core_tasks_never_overlap_more_than_the_cores_and_start_in_order(cluster: Cluster) -> None:
    cores = next(node["total_cores"] for node in cluster.listed_nodes() if node["hostname"] == "kr-n1")
    ids = [cluster.submit("true", targets=["kr-n1"], required_cores=1) for _ in range(50)]
    records = [cluster.finished(task_id, seconds=240) for task_id in ids]
    assert {record["status"] for record in records} == {"completed"}
    intervals = [_interval(record) for record in records]
    for started, _ in intervals:
        assert sum(begin <= started < end for begin, end in intervals) <= cores
    # With `cores` under way at once, a task may overtake only those that started beside it.
    order = sorted(range(50), key=lambda index: intervals[index][0])
    assert all(abs(place - index) < cores for place, index in enumerate(order))


def test_a_task_that_can_never_run_says_why_on_each_node(cluster: Cluster) -> None:
    task_id = cluster.submit("true", required_cores=10_000)
    shown = cluster.cli("task", "status", task_id)
    assert shown.returncode == 0
    assert b"kr-n1" in shown.stdout
    assert b"cores" in shown.stdout
    record = cluster.status(task_id)
    assert record["status"] == "pending"
    assert {reason["node"] for reason in record["pending_reasons"]} >= {"kr-n1", "kr-n2"}
    cluster.client.post(f"/api/kill/{task_id}")
    assert cluster.finished(task_id)["status"] == "killed"


def test_pause_freezes_and_resume_thaws(cluster: Cluster) -> None:
    task_id = cluster.submit("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
    wait_for(lambda: cluster.output(task_id), "the first lines")
    assert cluster.client.post(f"/api/command/{task_id}/pause").status_code < 300
    cluster.await_state(task_id, "paused")
    frozen = cluster.output(task_id)
    assert cluster.output(task_id) == frozen
    assert cluster.client.post(f"/api/command/{task_id}/resume").status_code < 300
    cluster.await_state(task_id, "running")
    wait_for(lambda: len(cluster.output(task_id)) > len(frozen), "output after the thaw")
    cluster.client.post(f"/api/kill/{task_id}")
    assert cluster.finished(task_id)["status"] == "killed"


def test_several_targets_make_one_batch(cluster: Cluster) -> None:
    body = {"task_type": "command", "command": "hostname", "targets": ["kr-n1", "kr-n2", "nowhere"]}
    answer = cluster.client.post("/api/submit", json=body)
    assert answer.status_code == 202
    ids = answer.json()["task_ids"]
    records = [cluster.finished(task_id) for task_id in ids]
    assert [record["assigned_node"] for record in records] == ["kr-n1", "kr-n2"]
    assert len({record["batch_id"] for record in records}) == 1
    assert "nowhere" in str(answer.json()["failed_targets"])


def test_a_higher_priority_goes_first(cluster: Cluster) -> None:
    cores = next(node["total_cores"] for node in cluster.listed_nodes() if node["hostname"] == "kr-n1")
    blocker = cluster.submit("sleep", "600", targets=["kr-n1"], required_cores=cores)
    cluster.await_state(blocker, "running")
    low = cluster.submit("true", targets=["kr-n1"], required_cores=cores)
    high = cluster.submit("true", targets=["kr-n1"], required_cores=cores, priority=10)
    cluster.client.post(f"/api/kill/{blocker}")
    low_record, high_record = cluster.finished(low), cluster.finished(high)
    assert high_record["started_at"] < low_record["started_at"]


def test_the_environment_and_mounts_are_what_the_documents_say(cluster: Cluster) -> None:
    script = "env; echo dir=$(pwd); test -d /local_temp && test -d /shared && echo mounted; id -u"
    task_id = cluster.submit("sh", "-c", script, env_vars={"MINE": "yes"}, targets=["kr-n1"])
    assert cluster.finished(task_id)["status"] == "completed"
    lines = cluster.output(task_id).decode().splitlines()
    assert f"KOHAKURIVER_TASK_ID={task_id}" in lines
    assert {"MINE=yes", "KOHAKURIVER_LOCAL_TEMP_DIR=/local_temp", "KOHAKURIVER_SHARED_DIR=/shared"} <= set(
        lines
    )
    assert "mounted" in lines
    assert "dir=/shared" in lines


def test_follow_shows_output_while_it_comes_and_ends_with_the_task(cluster: Cluster) -> None:
    task_id = cluster.submit("sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done")
    with cluster.client.stream("GET", f"/api/tasks/{task_id}/stdout", params={"follow": "true"}) as answer:
        text = b"".join(answer.iter_bytes())
    record = cluster.finished(task_id)
    assert record["status"] == "completed", record["error_message"]
    assert text == b"".join(f"line {i}\n".encode() for i in range(1, 6))


def test_twenty_tasks_submitted_side_by_side_all_complete(cluster: Cluster) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda i: cluster.submit("echo", str(i), required_cores=0), range(20)))
    assert len(set(ids)) == 20
    for i, task_id in enumerate(ids):
        record = cluster.finished(task_id)
        assert record["status"] == "completed", record["error_message"]
        assert cluster.output(task_id) == f"{i}\n".encode()


def test_what_a_task_used_is_given_back(cluster: Cluster) -> None:
    task_id = cluster.submit("true")
    cluster.finished(task_id)

    def gone() -> bool:
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=kohakuriver.task_id={task_id}"],
            capture_output=True,
            check=True,
        )
        return not listed.stdout

    wait_for(gone, "the container to be removed")
    wait_for(
        lambda: all(node["cores_used"] == 0 for node in cluster.listed_nodes()), "the cores to be given back"
    )
