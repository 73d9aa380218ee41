"""Looking at tasks and steering them over HTTP: who may, what is shown to whom, what is answered."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.models.enums import TaskState
from support.cluster.terminal_path import running_task
from support.host.api import ApiHarness, play


def test_values_of_environment_variables_are_shown_to_owner_and_operators_alone(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit("ursula", env_vars={"KEY": "secret"})
        for who, value in (("ursula", "secret"), ("otto", "secret"), ("ulf", "***"), ("vera", "***")):
            shown = (await harness.call(who, "GET", f"/api/status/{task}")).json()
            assert shown["env_vars"] == {"KEY": value}, who
            listed = (await harness.call(who, "GET", "/api/tasks")).json()
            assert listed[0]["env_vars"] == {"KEY": value}, who

    play(tmp_path, scenario)


@pytest.mark.parametrize("path", ["/api/kill/{}", "/api/command/{}/pause", "/api/command/{}/resume"])
def test_a_task_obeys_its_owner_and_operators_and_nobody_else(tmp_path: Path, path: str) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit("ursula")
        for who in ("ulf", "vera"):
            assert (await harness.call(who, "POST", path.format(task))).status_code == 403, who
        # A task that does not run cannot be paused, which only those learn who may ask.
        allowed = 202 if "kill" in path else 409
        assert (await harness.call("ursula", "POST", path.format(task))).status_code == allowed
        other = await harness.submit("ursula")
        assert (await harness.call("otto", "POST", path.format(other))).status_code == allowed

    play(tmp_path, scenario)


def test_a_signal_goes_to_the_attempt_that_runs_and_kills_nothing(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join()
        task = await running_task(harness, "ursula")
        path = f"/api/signal/{task}"
        harness.runners.answers["POST", path] = b"{}"
        assert (await harness.call("ulf", "POST", f"/api/kill/{task}?signal=USR1")).status_code == 403
        assert (await harness.call("ursula", "POST", f"/api/kill/{task}?signal=sigusr1")).status_code == 202
        assert harness.runners.calls == [("n1", "POST", f"{path}?signal=USR1&attempt=1", b"")]
        assert not (await harness.room.control.tasks.find(task)).kill_requested
        assert (await harness.call("ursula", "POST", f"/api/kill/{task}?signal=NOISE")).status_code == 422
        waiting = await harness.submit("ursula")
        refused = await harness.call("ursula", "POST", f"/api/kill/{waiting}?signal=USR1")
        assert (refused.status_code, "only one that runs" in refused.json()["detail"]) == (409, True)

    play(tmp_path, scenario)


def test_the_signal_kill_is_a_kill_without_grace_and_stays_one_while_the_node_is_unreachable(
    tmp_path: Path,
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join()
        task = await running_task(harness, "ursula")
        refused = await harness.call("ursula", "POST", f"/api/kill/{task}?signal=KILL")
        assert (refused.status_code, "is killed once" in refused.json()["detail"]) == (503, True)
        assert (await harness.room.control.tasks.find(task)).kill_requested
        harness.runners.answers["POST", f"/api/signal/{task}"] = b"{}"
        assert (await harness.call("ursula", "POST", f"/api/kill/{task}?signal=KILL")).status_code == 202
        assert harness.runners.calls[-1][2] == f"/api/signal/{task}?signal=KILL&attempt=1"
        waiting = await harness.submit("ursula")
        assert (await harness.call("ursula", "POST", f"/api/kill/{waiting}?signal=KILL")).status_code == 202

    play(tmp_path, scenario)


def test_lists_are_newest_first_filtered_and_paged(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        tasks = [await harness.submit("otto", name=f"t{index}") for index in range(5)]
        await harness.submit("ursula")
        await harness.call("otto", "POST", f"/api/kill/{tasks[0]}")

        async def ids(query: str, who: str = "vera", path: str = "/api/tasks") -> list[str]:
            return [row["task_id"] for row in (await harness.call(who, "GET", path + query)).json()]

        assert (await ids("?limit=2&offset=1")) == [tasks[4], tasks[3]]
        assert (await ids("?status=killed")) == [tasks[0]]
        assert (await ids("?name=t3")) == [tasks[3]]
        assert (await ids("?node=nowhere")) == []
        assert (await ids("", "otto", "/api/tasks/my")) == tasks[::-1]
        assert len(await ids("", "otto", "/api/tasks/pending-approval")) == 1

    play(tmp_path, scenario)


def test_a_list_that_was_cached_shows_the_next_commit(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for count in range(1, 4):
            await harness.submit("otto")
            assert len((await harness.call("vera", "GET", "/api/tasks")).json()) == count

    play(tmp_path, scenario)


def test_status_waits_for_the_end_of_a_task(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit("otto")
        waiting = asyncio.create_task(harness.call("otto", "GET", f"/api/status/{task}?wait_seconds=60"))
        await asyncio.sleep(0)
        await harness.call("otto", "POST", f"/api/kill/{task}")
        assert (await waiting).json()["status"] == "killed"
        brief = await harness.call("otto", "GET", f"/api/status/{await harness.submit()}?wait_seconds=0.05")
        assert brief.json()["status"] == "pending"

    play(tmp_path, scenario)


def test_a_waiting_task_says_why_for_each_node(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=2)
        task = await harness.submit(required_cores=3)
        shown = (await harness.call("vera", "GET", f"/api/status/{task}")).json()
        assert shown["pending_reasons"][0]["node"] == "n1"
        assert "3 cores wanted" in shown["pending_reasons"][0]["reason"]

    play(tmp_path, scenario)


def test_ids_that_are_none_are_refused_everywhere(tmp_path: Path) -> None:
    routes = (
        ("GET", "/api/status/{}"),
        ("GET", "/api/tasks/{}/stdout"),
        ("POST", "/api/kill/{}"),
        ("POST", "/api/approve/{}"),
        ("POST", "/api/reject/{}"),
    )

    async def scenario(harness: ApiHarness) -> None:
        for text in ("0", "-1", "x", "1.0", "\N{ARABIC-INDIC DIGIT THREE}", "9" * 20, "1 or 1=1"):
            for method, path in routes:
                answer = await harness.call("ada", method, path.format(text))
                assert answer.status_code == 422, answer.text
                assert "task id" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_an_id_that_nobody_has_is_404(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answers = [
            await harness.call("vera", "GET", "/api/status/77"),
            await harness.call("ursula", "POST", "/api/kill/77"),
            await harness.call("otto", "POST", "/api/kill/77"),
            await harness.call("otto", "POST", "/api/approve/77"),
            await harness.call("vera", "GET", "/api/tasks/77/stderr"),
        ]
        assert {answer.status_code for answer in answers} == {404}

    play(tmp_path, scenario)


def test_operators_decide_and_the_record_says_who(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        good, bad = await harness.submit("ursula"), await harness.submit("ursula")
        assert (await harness.call("ursula", "POST", f"/api/approve/{good}")).status_code == 403
        assert (await harness.call("otto", "POST", f"/api/approve/{good}")).status_code == 200
        answer = await harness.call("otto", "POST", f"/api/reject/{bad}", params={"reason": "no budget"})
        assert answer.status_code == 200
        shown = (await harness.call("ursula", "GET", f"/api/status/{bad}")).json()
        assert (shown["status"], shown["decided_by"]) == ("rejected", "otto")
        assert shown["error_message"] == "no budget"
        assert (await harness.room.state(int(good))) is TaskState.PENDING  # type: ignore[arg-type]
        assert (await harness.call("otto", "POST", f"/api/approve/{good}")).status_code == 409

    play(tmp_path, scenario)


def test_a_task_is_found_by_name_and_by_the_end_of_its_id(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit(name="train")
        for ref in ("train", task, task[-6:]):
            answer = await harness.call("vera", "GET", "/api/tasks/resolve", params={"ref": ref})
            assert answer.json() == {"task_id": task}
        assert (await harness.call("vera", "GET", "/api/tasks/resolve?ref=nobody")).status_code == 404

    play(tmp_path, scenario)


def test_a_vps_is_found_by_its_name_past_a_newer_task_of_that_name(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        created = await harness.call("otto", "POST", "/api/vps/create", json={"name": "train"})
        vps = created.json()["task_id"]
        task = await harness.submit(name="train")
        for kind, expected in (("", task), ("&task_type=vps", vps), ("&task_type=command", task)):
            answer = await harness.call("vera", "GET", f"/api/tasks/resolve?ref=train{kind}")
            assert answer.json() == {"task_id": expected}

    play(tmp_path, scenario)


def test_nodes_are_shown_with_what_is_given_out_and_waiting_runners_with_their_fingerprint(
    tmp_path: Path,
) -> None:
    from kohakuriver.wire.messages import EnrolRequest
    from kohakuriver.wire.trust.identity import Identity

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=4)
        await harness.submit(required_cores=3, required_memory_bytes=64 << 20)
        key = Identity.generate()
        await harness.room.control.runners.enrol(EnrolRequest(hostname="n2", public_key=key.public_key))
        rows = {row["hostname"]: row for row in (await harness.call("vera", "GET", "/api/nodes")).json()}
        assert rows["n1"]["status"] == "online"
        assert (rows["n1"]["cores_used"], rows["n1"]["memory_used_by_tasks_bytes"]) == (3, 64 << 20)
        assert rows["n2"]["status"] == "pending"
        assert rows["n2"]["fingerprint"] == key.fingerprint
        body = {"fingerprint": key.fingerprint}
        assert (await harness.call("otto", "POST", "/api/nodes/n2/approve", json=body)).status_code == 403
        assert (await harness.call("ada", "POST", "/api/nodes/n2/approve", json=body)).status_code == 200
        answer = await harness.call("ada", "POST", "/api/nodes/nobody/approve", json={})
        assert answer.status_code == 404

    play(tmp_path, scenario)


def test_join_tokens_are_shown_once(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        path = "/api/nodes/join-tokens"
        made = (await harness.call("ada", "POST", path, json={"expires_hours": 2})).json()
        assert made["token"].startswith(f"krj1.{made['token_id']}.")
        listed = await harness.call("ada", "GET", path)
        assert [row["token_id"] for row in listed.json()] == [made["token_id"]]
        assert made["token"].split(".")[2] not in listed.text
        assert (await harness.call("ada", "DELETE", f"{path}/{made['token_id']}")).status_code == 200
        assert (await harness.call("ada", "DELETE", f"{path}/{made['token_id']}")).status_code == 404
        for hours in (0, -1, 1e9, "x", None):
            answer = await harness.call("ada", "POST", path, json={"expires_hours": hours})
            assert answer.status_code == 422

    play(tmp_path, scenario)
