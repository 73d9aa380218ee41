"""VPSs over HTTP: who may what, which keys are taken and shown, and what the runner says of snapshots."""

import json
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.enums import PullPolicy, TaskState
from kohakuriver.models.errors import EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.wire.messages import encode
from kohakuriver.wire.snapshots import SnapshotState
from support.host.api import ApiHarness, play

PUBLIC = new_key_pair("ann@lab").public
SNAPSHOTS = [
    SnapshotState(at=1_700_000_100, message="newer", size_bytes=5),
    SnapshotState(at=1_700_000_000, message="", size_bytes=7),
]


async def created(harness: ApiHarness, **body: Any) -> dict[str, Any]:
    answer = await harness.call("otto", "POST", "/api/vps/create", json=body)
    assert answer.status_code == 200, answer.text
    fields: dict[str, Any] = answer.json()
    return fields


async def running(harness: ApiHarness, **body: Any) -> str:
    """A VPS of otto's that its node n1 reports as running."""
    await harness.room.join("n1")
    task = str((await created(harness, **body))["task_id"])
    await harness.room.accept_orders()
    await harness.room.report(int(task), TaskState.RUNNING, 1, address="172.30.0.9")
    return task


def test_a_vps_shows_what_it_is_and_no_secret_of_it(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        harness.open_gateway()
        task = await running(harness, name="lab", ssh_public_key=PUBLIC)
        (listed,) = (await harness.call("vera", "GET", "/api/vps")).json()
        shown = (await harness.call("vera", "GET", f"/api/status/{task}")).json()
        assert (await harness.call("vera", "GET", "/api/vps/status")).json() == [shown] == [listed]
        assert (shown["name"], shown["task_type"], shown["status"]) == ("lab", "vps", "running")
        assert (shown["ssh_key_mode"], shown["ssh_port"], shown["address"]) == ("upload", 8002, "172.30.0.9")
        assert shown["host_public_key"].startswith("ssh-ed25519 ")
        assert "PRIVATE KEY" not in json.dumps(shown)
        assert (await harness.call("vera", "GET", "/api/tasks")).json() == []

    play(tmp_path, scenario)


def test_a_generated_private_key_is_in_one_answer_and_nowhere_else(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        made = await created(harness, ssh_key_mode="generate")
        body = made["ssh_private_key"].splitlines()[2]
        assert made["ssh_public_key"].startswith("ssh-ed25519 ")
        (order,) = harness.room.control.runners.orders_for("n1", 10)
        assert body not in encode(order).decode()
        assert order.session is not None
        assert order.session.authorized_keys == [made["ssh_public_key"]]
        harness.room.store.close()
        for file in tmp_path.iterdir():
            assert not file.is_file() or body.encode() not in file.read_bytes(), file.name

    play(tmp_path, scenario)


def test_what_a_vps_asks_of_its_container_stands_in_its_order(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        await created(
            harness,
            shm_size_bytes=1 << 20,
            ulimits=["nofile=9"],
            ipc="none",
            devices=["/dev/fuse"],
            capabilities=["NET_RAW"],
            required_cores=0.5,
            registry_image="debian:12",
            pull="always",
        )
        (order,) = harness.room.control.runners.orders_for("n1", 10)
        assert order.options == ContainerOptions(
            1 << 20, ("nofile=9:9",), ipc="none", devices=("/dev/fuse:/dev/fuse:rwm",)
        )
        assert (order.capabilities, order.pull) == (["NET_RAW"], PullPolicy.ALWAYS)
        assert (order.required_cores, order.cores_thousandths) == (1, 500)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "mode", "port"),
    [
        ({}, "disabled", None),
        ({"ssh_public_key": PUBLIC}, "upload", 8002),
        ({"ssh_key_mode": "none"}, "none", 8002),
        ({"ssh_key_mode": "upload", "ssh_public_keys": [PUBLIC, new_key_pair("b").public]}, "upload", 8002),
    ],
)
def test_the_mode_follows_from_what_is_given(
    tmp_path: Path, body: dict[str, Any], mode: str, port: int | None
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        harness.open_gateway()
        await harness.room.join("n1")
        made = await created(harness, **body)
        shown = (await harness.call("otto", "GET", f"/api/status/{made['task_id']}")).json()
        assert (shown["ssh_key_mode"], made["ssh_port"]) == (mode, port)
        (order,) = harness.room.control.runners.orders_for("n1", 10)
        assert order.session is not None
        assert bool(order.session.host_key) is (mode != "disabled")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"name": "../x"}, "name", "VPS's name"),
        ({"name": "a\nb"}, "name", "VPS's name"),
        ({"name": "-x"}, "name", "VPS's name"),
        ({"name": "X" * 64}, "name", "VPS's name"),
        ({"name": "12345"}, "name", "VPS's name"),
        ({"ssh_public_key": f'command="id" {PUBLIC}'}, "ssh_public_key", "options"),
        ({"ssh_public_key": f"{PUBLIC}\n{PUBLIC}"}, "ssh_public_key", "one line"),
        ({"ssh_public_keys": [PUBLIC, "ssh-ed25519 AAAA"]}, "ssh_public_keys.1", "key"),
        ({"ssh_key_mode": "upload"}, "ssh_public_key", "needs a public key"),
        ({"ssh_key_mode": "generate", "ssh_public_key": PUBLIC}, "ssh_public_key", "takes no"),
        ({"ssh_key_mode": "password"}, "ssh_key_mode", ""),
        ({"vps_backend": "qemu"}, "vps_backend", "Docker"),
        ({"vm_image": "debian"}, "vps_backend", "Docker"),
        ({"required_gpus": [0]}, "target_hostname", "name the node"),
        ({"required_gpus": [0, 0], "target_hostname": "n1"}, "required_gpus", "twice"),
        ({"target_numa_node_id": 1}, "target_hostname", "name the node"),
        ({"target_hostname": "n1;id"}, "target_hostname", "node's name"),
        ({"container_name": "a", "registry_image": "b"}, "registry_image", "not both"),
        ({"container_name": "../a"}, "container_name", "environment's name"),
        ({"registry_image": "--privileged"}, "registry_image", "image reference"),
        ({"additional_mounts": ["/a:/b,ro"]}, "additional_mounts.0", ""),
        ({"env_vars": {"A=B": "x"}}, "env_vars", ""),
        ({"required_cores": -1}, "required_cores", ""),
        ({"ip_reservation_token": "x"}, "ip_reservation_token", "overlay"),
    ],
)
def test_nonsense_is_refused_with_the_field_that_is_to_blame(
    tmp_path: Path, body: dict[str, Any], field: str, words: str
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        answer = await harness.call("otto", "POST", "/api/vps/create", json=body)
        assert answer.status_code == 422
        refusal = answer.json()
        assert refusal["field"].startswith(field)
        assert words in refusal["detail"]
        assert (await harness.call("vera", "GET", "/api/vps")).json() == []

    play(tmp_path, scenario)


def test_users_do_not_create_vps_and_control_none_but_their_own(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        assert (await harness.call("ursula", "POST", "/api/vps/create", json={})).status_code == 403
        for path in ("stop", "restart"):
            assert (await harness.call("ursula", "POST", f"/api/vps/{path}/{task}")).status_code == 403
        path = f"/api/vps/snapshots/{task}"
        for method, target in (
            ("POST", path),
            ("DELETE", path),
            ("DELETE", f"{path}/5"),
            ("POST", f"{path}/5/restore"),
        ):
            assert (await harness.call("ursula", method, target, json={})).status_code == 403
        assert harness.runners.calls == []
        assert (await harness.call("otto", "POST", f"/api/vps/stop/{task}")).status_code == 202

    play(tmp_path, scenario)


def test_a_command_task_and_an_unknown_one_are_404(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        command = await harness.submit()
        for task in (command, "12345"):
            for method, path in (
                ("POST", f"/api/vps/stop/{task}"),
                ("POST", f"/api/vps/restart/{task}"),
                ("GET", f"/api/vps/snapshots/{task}"),
                ("GET", f"/api/vps/{task}/assignments"),
            ):
                assert (await harness.call("otto", method, path)).status_code == 404, path

    play(tmp_path, scenario)


def test_snapshots_are_asked_of_the_vps_node(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        path = f"/api/vps/snapshots/{task}"
        harness.runners.answers = {
            ("GET", path): encode(SNAPSHOTS),
            ("POST", path): encode(SNAPSHOTS[0]),
            ("DELETE", f"{path}/1700000000"): b"{}",
            ("DELETE", path): b"{}",
        }
        listed = (await harness.call("vera", "GET", path)).json()["snapshots"]
        assert [(s["timestamp"], s["message"], s["size_bytes"]) for s in listed] == [
            (1_700_000_100, "newer", 5),
            (1_700_000_000, "", 7),
        ]
        assert listed[0]["created_at"] == "2023-11-14T22:15:00Z"
        assert (await harness.call("vera", "GET", f"{path}/latest")).json() == listed[0]
        made = await harness.call("otto", "POST", path, json={"message": "before the upgrade"})
        assert made.json() == listed[0]
        assert json.loads(harness.runners.calls[-1][3]) == {"message": "before the upgrade"}
        assert (await harness.call("otto", "DELETE", f"{path}/1700000000")).status_code == 200
        assert (await harness.call("otto", "DELETE", path)).status_code == 200
        assert {call[0] for call in harness.runners.calls} == {"n1"}

    play(tmp_path, scenario)


def test_what_the_runner_refuses_is_answered_with_its_sentence(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        path = f"/api/vps/snapshots/{task}"
        harness.runners.answers = {
            ("POST", path): EngineFault("the disk is full"),
            ("DELETE", f"{path}/5"): NotFound("there is no snapshot 5"),
            ("GET", path): encode([]),
        }
        answer = await harness.call("otto", "POST", path, json={})
        assert (answer.status_code, answer.json()["detail"]) == (502, "the disk is full")
        assert (await harness.call("otto", "DELETE", f"{path}/5")).status_code == 404
        assert (await harness.call("otto", "GET", f"{path}/latest")).status_code == 404
        harness.runners.answers.clear()
        assert (await harness.call("otto", "GET", path)).status_code == 503

    play(tmp_path, scenario)


def test_a_chosen_snapshot_is_started_from_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        path = f"/api/vps/snapshots/{task}"
        harness.runners.answers = {("GET", path): encode(SNAPSHOTS)}
        assert (await harness.call("otto", "POST", f"{path}/5/restore", json={})).status_code == 404
        answer = await harness.call("otto", "POST", f"{path}/1700000000/restore", json={})
        assert answer.status_code == 202
        await harness.room.accept_orders()
        await harness.room.report(int(task), TaskState.STOPPED, 2)
        (order,) = harness.room.control.runners.orders_for("n1", 10)
        assert order.session is not None
        assert order.session.restore == "1700000000"

    play(tmp_path, scenario)


def test_a_move_brings_the_snapshot_over_before_the_vps_changes_its_place(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        await harness.room.join("n2")
        path, body = f"/api/vps/snapshots/{task}", {"target_hostname": "n2"}
        harness.runners.answers = {
            ("GET", path): encode(SNAPSHOTS),
            ("POST", f"{path}/1700000000/export"): b"{}",
            ("POST", f"{path}/1700000000/import"): EngineFault("n2 has no room"),
        }
        target = f"{path}/1700000000/restore"
        assert (await harness.call("otto", "POST", target, json=body)).status_code == 409
        await harness.room.report(int(task), TaskState.STOPPED, 2)
        assert (await harness.call("otto", "POST", target, json=body)).status_code == 502
        stopped = await harness.room.control.tasks.find(TaskId(int(task)))
        assert (stopped.state, stopped.assigned_node) == (TaskState.STOPPED, "n1")
        harness.runners.answers["POST", f"{path}/1700000000/import"] = b"{}"
        assert (await harness.call("otto", "POST", target, json=body)).status_code == 202
        asked = [
            (node, where.rsplit("/", 1)[1])
            for node, method, where, _ in harness.runners.calls
            if method == "POST"
        ]
        assert [call for call in asked if call[1] in ("export", "import")][-2:] == [
            ("n1", "export"),
            ("n2", "import"),
        ]
        moved = await harness.room.control.tasks.find(TaskId(int(task)))
        assert (moved.state, moved.assigned_node) == (TaskState.ASSIGNING, "n2")

    play(tmp_path, scenario)


def test_assignments_are_kept_and_taken_away(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)
        path = f"/api/vps/{task}/assignments"
        assert (await harness.call("otto", "POST", path, json={"username": "ursula"})).status_code == 200
        (row,) = (await harness.call("otto", "GET", path)).json()["assignments"]
        assert (row["username"], row["assigned_by"]) == ("ursula", "otto")
        assert (await harness.call("otto", "DELETE", path, params={"username": "vera"})).status_code == 404
        assert (await harness.call("otto", "DELETE", path, params={"username": "ursula"})).status_code == 200
        assert (await harness.call("otto", "GET", path)).json() == {"task_id": task, "assignments": []}

    play(tmp_path, scenario)


def test_the_list_of_what_one_may_use_holds_ones_own_and_what_was_assigned(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await running(harness)

        async def usable(who: str) -> list[str]:
            answer = await harness.call(who, "GET", "/api/vps", params={"usable": "true"})
            return [record["task_id"] for record in answer.json()]

        assert [await usable(who) for who in ("otto", "ada", "ursula")] == [[task], [task], []]
        await harness.call("otto", "POST", f"/api/vps/{task}/assignments", json={"username": "ursula"})
        assert [await usable(who) for who in ("ursula", "ulf", "vera")] == [[task], [], []]

    play(tmp_path, scenario)


def test_the_gateway_that_does_not_listen_is_said_to_be_unreachable(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        assert (await harness.call("vera", "GET", "/api/vps/gateway")).status_code == 503

    play(tmp_path, scenario)
