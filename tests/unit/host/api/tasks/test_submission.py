"""Submission over HTTP: what is taken, what is refused with a sentence that helps."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from support.host.api import ApiHarness, play

MIB = 1 << 20


def test_a_submission_is_answered_202_with_its_id_as_a_string(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        answer = await harness.call(
            "otto", "POST", "/api/submit", json={"command": "true", "targets": ["n1"]}
        )
        assert answer.status_code == 202
        body = answer.json()
        assert isinstance(body["task_ids"][0], str)
        assert body["assigned_node"] == "n1"
        assert "failed_targets" not in body
        shown = (await harness.call("vera", "GET", f"/api/status/{body['task_ids'][0]}")).json()
        assert (shown["command"], shown["owner"], shown["target"]) == ("true", "otto", "n1")

    play(tmp_path, scenario)


def test_fields_that_are_null_count_as_not_given(tmp_path: Path) -> None:
    names = (
        "arguments env_vars required_cores required_gpus required_memory_bytes targets container_name "
        "registry_image working_dir privileged additional_mounts ip_reservation_token name priority "
        "capabilities shm_size_bytes ulimits ipc devices user hostname pull"
    )

    async def scenario(harness: ApiHarness) -> None:
        unset: dict[str, Any] = dict.fromkeys(names.split())
        await harness.submit(**unset)

    play(tmp_path, scenario)


def test_several_targets_make_one_batch_and_name_what_failed(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        await harness.room.join("n2")
        body = {"command": "true", "targets": ["n1", "n2", "nowhere"]}
        answer = (await harness.call("otto", "POST", "/api/submit", json=body)).json()
        assert len(answer["task_ids"]) == 2
        assert [failed["target"] for failed in answer["failed_targets"]] == ["nowhere"]
        shown = [(await harness.call("vera", "GET", f"/api/status/{i}")).json() for i in answer["task_ids"]]
        assert shown[0]["batch_id"] == shown[1]["batch_id"] is not None

    play(tmp_path, scenario)


def test_a_users_task_waits_for_approval_and_an_operators_does_not(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for who, status in (("ursula", "pending_approval"), ("otto", "pending")):
            task = await harness.submit(who)
            assert (await harness.call(who, "GET", f"/api/status/{task}")).json()["status"] == status

    play(tmp_path, scenario)


NONSENSE: list[tuple[dict[str, Any], str, str]] = [
    ({"command": ""}, "command", "character"),
    ({"command": "x" * 4097}, "command", "4096"),
    ({"command": "a\0b"}, "command", "NUL"),
    ({"command": 7}, "command", "string"),
    ({"command": None}, "command", "string"),
    ({"shm_size_bytes": -1}, "shm_size_bytes", "0"),
    ({"shm_size_bytes": 1 << 51}, "shm_size_bytes", "less"),
    ({"ulimits": ["nofile"]}, "ulimits", "NAME=SOFT"),
    ({"ulimits": ["nofile=1"] * 21}, "ulimits", "20"),
    ({"ipc": "container:x"}, "ipc", "IPC mode"),
    ({"devices": ["/etc/passwd"]}, "devices", "/dev/"),
    ({"user": "a b"}, "user", "USER"),
    ({"hostname": "-x"}, "hostname", "host name"),
    ({"arguments": "ls"}, "arguments", "array"),
    ({"arguments": ["a", "b\0"]}, "arguments.1", "NUL"),
    ({"arguments": ["x" * 200_000]}, "arguments.0", "128 KiB"),
    ({"arguments": ["x" * 120_000] * 10}, "arguments", "1 MiB"),
    ({"arguments": ["x"] * 10_001}, "arguments", "10000"),
    ({"env_vars": {"A=B": "x"}}, "env_vars", "A=B"),
    ({"env_vars": {"": "x"}}, "env_vars", "name"),
    ({"env_vars": {"A": "x\0"}}, "env_vars.A", "NUL"),
    ({"env_vars": {"A": 1}}, "env_vars.A", "string"),
    ({"required_cores": -1}, "required_cores", "0"),
    ({"required_cores": 10_001}, "required_cores", "10000"),
    ({"required_cores": 0.001}, "required_cores", "0.01"),
    ({"required_cores": True}, "required_cores", "number"),
    ({"required_cores": "2"}, "required_cores", "number"),
    ({"required_memory_bytes": -1}, "required_memory_bytes", "0"),
    ({"required_memory_bytes": 1 << 70}, "required_memory_bytes", "less"),
    ({"required_memory_bytes": 512}, "required_memory_bytes", "for 512 MiB ask for 536870912"),
    ({"required_memory_bytes": (6 << 20) - 1}, "required_memory_bytes", "less than a container can have"),
    ({"required_memory_bytes": "256M"}, "required_memory_bytes", "integer"),
    ({"targets": ["n1;reboot"]}, "targets.0", "hostname"),
    ({"targets": ["n1:1:2"]}, "targets.0", "hostname"),
    ({"targets": ["n1::0,0"]}, "targets.0", "twice"),
    ({"targets": ["n1"] * 1001}, "targets", "1000"),
    ({"targets": ["n1:5"]}, "targets", "NUMA"),
    ({"targets": ["n1::3"]}, "targets", "GPU"),
    ({"required_gpus": [[0]]}, "required_gpus", "node"),
    ({"required_gpus": [[0], [1]], "targets": ["n1"]}, "required_gpus", "one for each"),
    ({"required_gpus": [[1]], "targets": ["n1::0"]}, "required_gpus.0", "different"),
    ({"required_gpus": [[1, 1]], "targets": ["n1"]}, "required_gpus.0", "twice"),
    ({"required_gpus": [[-1]], "targets": ["n1"]}, "required_gpus.0.0", "0"),
    ({"container_name": "../x"}, "container_name", "environment"),
    ({"container_name": "a\nb"}, "container_name", "environment"),
    ({"registry_image": "--privileged"}, "registry_image", "image"),
    ({"container_name": "a", "registry_image": "b"}, "registry_image", "not both"),
    ({"pull": "always"}, "pull", "registry_image"),
    ({"pull": "always", "container_name": "a"}, "pull", "registry_image"),
    ({"pull": "sometimes", "registry_image": "b"}, "pull", "always"),
    ({"additional_mounts": ["/a,readonly=off:/b"]}, "additional_mounts.0", "comma"),
    ({"additional_mounts": ["/a:/b", "/a/../etc:/b"]}, "additional_mounts.1", ".."),
    ({"working_dir": "relative"}, "working_dir", "absolute"),
    ({"working_dir": "/a\n"}, "working_dir", "control"),
    ({"name": "../up"}, "name", "name"),
    ({"name": "x" * 300}, "name", "63"),
    ({"priority": 1001}, "priority", "1000"),
    ({"task_type": "vps"}, "task_type", "/api/vps/create"),
    ({"task_type": "service"}, "task_type", "vps"),
    ({"ip_reservation_token": "t"}, "ip_reservation_token", "overlay"),
]


def test_nonsense_is_refused_with_its_field_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        before = harness.room.control.figures.revision
        for fields, field, word in NONSENSE:
            answer = await harness.call("otto", "POST", "/api/submit", json={"command": "true", **fields})
            assert answer.status_code == 422, (fields, answer.text)
            assert answer.json()["field"] == field, (fields, answer.text)
            assert word in answer.json()["detail"], (fields, answer.text)
        assert harness.room.control.figures.revision == before

    play(tmp_path, scenario)


def test_an_unknown_node_is_not_found(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("otto", "POST", "/api/submit", json={"command": "x", "targets": ["zz"]})
        assert answer.status_code == 404
        assert "zz" in answer.json()["detail"]

    play(tmp_path, scenario)


def test_gpus_may_stand_in_the_target_or_in_required_gpus(tmp_path: Path) -> None:
    from kohakuriver.host.api.http.bodies import SubmitBody
    from kohakuriver.host.api.tasks.submission import specs_of
    from kohakuriver.host.auth import Actor
    from kohakuriver.models.enums import Role

    otto = Actor("otto", Role.OPERATOR)
    in_target = SubmitBody(command="x", targets=["n1:0::1,0", "n2"])
    in_list = SubmitBody(command="x", targets=["n1:0", "n2"], required_gpus=[[0, 1], []])
    both = SubmitBody(command="x", targets=["n1:0::0,1", "n2"], required_gpus=[[1, 0], []])
    made = [specs_of(body, otto) for body in (in_target, in_list, both)]
    assert made[0] == made[1] == made[2]
    assert [spec.required_gpus for spec in made[0]] == [(0, 1), ()]
    assert str(made[0][0].target) == "n1:0::0,1"


@pytest.mark.parametrize(
    "fields",
    [
        {"privileged": True},
        {"additional_mounts": ["/etc:/x"]},
        {"capabilities": ["NET_RAW"]},
        {"devices": ["/dev/fuse"]},
        {"ipc": "host"},
        {"ulimits": ["rtprio=99"]},
        {"ulimits": ["nofile=9", "nice=40:40"]},
    ],
)
def test_reaching_into_the_node_needs_an_operator(tmp_path: Path, fields: dict[str, Any]) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("ursula", "POST", "/api/submit", json={"command": "true", **fields})
        assert answer.status_code == 403
        assert "operator" in answer.json()["detail"]
        await harness.submit("otto", **fields)

    play(tmp_path, scenario)


def test_capabilities_are_shown_to_who_approves_in_one_form(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task_id = await harness.submit("otto", capabilities=["cap_net_raw", "MKNOD", "NET_RAW"])
        shown = (await harness.call("vera", "GET", f"/api/status/{task_id}")).json()
        assert shown["capabilities"] == ["MKNOD", "NET_RAW"]
        for wrong in (["ALL"], ["NET RAW"], [""], "NET_RAW", ["NET_RAW"] * 101):
            body = {"command": "true", "capabilities": wrong}
            assert (await harness.call("otto", "POST", "/api/submit", json=body)).status_code == 422

    play(tmp_path, scenario)


def test_what_is_asked_of_the_container_is_shown_in_one_form(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        asked: dict[str, Any] = {
            "shm_size_bytes": 1 << 28,
            "ulimits": ["nofile=4096", "memlock=unlimited"],
            "ipc": "none",
            "devices": ["/dev/fuse"],
            "user": "1000:1000",
            "hostname": "Box.lab",
        }
        shown = (await harness.call("vera", "GET", f"/api/status/{await harness.submit(**asked)}")).json()
        wanted = asked | {
            "ulimits": ["memlock=-1:-1", "nofile=4096:4096"],
            "devices": ["/dev/fuse:/dev/fuse:rwm"],
        }
        assert {name: shown[name] for name in wanted} == wanted
        plain = (await harness.call("vera", "GET", f"/api/status/{await harness.submit()}")).json()
        assert {name: plain[name] for name in wanted} == {
            "shm_size_bytes": 0,
            "ulimits": [],
            "devices": [],
            **dict.fromkeys(("ipc", "user", "hostname")),
        }

    play(tmp_path, scenario)


def test_parts_of_a_core_are_shown_as_they_were_asked_for(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for asked, told in ((0.5, "0.5"), (2, "2"), (2.0, "2")):
            answer = await harness.call(
                "vera", "GET", f"/api/status/{await harness.submit(required_cores=asked)}"
            )
            assert f'"required_cores":{told},' in answer.text
        for wrong in (0.001, -0.5, 1e400, "1", True):
            body = json.dumps({"command": "true", "required_cores": wrong}).replace("Infinity", "1e400")
            headers = {"content-type": "application/json"}
            answer = await harness.call("otto", "POST", "/api/submit", content=body, headers=headers)
            assert (answer.status_code, answer.json()["field"]) == (422, "required_cores"), wrong

    play(tmp_path, scenario)


def test_an_images_own_command_needs_a_registry_image(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        image = {"registry_image": "debian:12"}
        bodies: list[dict[str, Any]] = [{**image}, {**image, "command": ""}, {**image, "arguments": ["-x"]}]
        for body in bodies:
            answer = await harness.call("otto", "POST", "/api/submit", json=body)
            assert answer.status_code == 202, answer.text
        bodies = [{}, {"container_name": "lab"}, {"arguments": ["-x"]}]
        for body in bodies:
            answer = await harness.call("otto", "POST", "/api/submit", json=body)
            assert (answer.status_code, answer.json()["field"]) == (422, "command")

    play(tmp_path, scenario)


BAD_BODIES = [
    (b'{"command":', 422, "JSON"),
    (b"\xff\xfe", 422, "JSON"),
    (b'{"command": "\xc3"}', 422, "JSON"),
    (b'{"command": "\\ud800"}', 422, "JSON"),
    (b'{"command": "x", "arguments": ["\\udfff"]}', 422, "JSON"),
    (b"[]", 422, "object"),
    (b"null", 422, "object"),
    (b"", 422, "command"),
    (b"[" * 100_000, 422, "JSON"),
    (b" " * (8 * MIB + 1), 413, "8 MiB"),
    (b'{"command": "' + b"x" * (10 * MIB) + b'"}', 413, "8 MiB"),
]


def test_a_body_that_is_no_json_or_too_large_is_refused(tmp_path: Path) -> None:
    async def pieces(body: bytes) -> Any:
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]

    async def scenario(harness: ApiHarness) -> None:
        headers = {"Content-Type": "application/json"}
        for body, status, word in BAD_BODIES:
            for content in (body, pieces(body)):
                answer = await harness.call("otto", "POST", "/api/submit", content=content, headers=headers)
                assert answer.status_code == status, (body[:40], answer.text)
                assert word in answer.json()["detail"], (body[:40], answer.text)

    play(tmp_path, scenario)


def test_what_a_form_of_another_site_can_send_is_refused(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {"Content-Type": kind}
            answer = await harness.call(
                "otto", "POST", "/api/submit", content=b'{"command": "x"}', headers=headers
            )
            assert answer.status_code == 422
            assert "application/json" in answer.json()["detail"]

    play(tmp_path, scenario)


async def shown_to(harness: ApiHarness, who: str, task: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await harness.call(who, "GET", f"/api/status/{task}")).json()
    return answer


def test_input_and_script_are_kept_and_shown_to_owner_and_operators(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        files = {"stdin": b64encode(b"one\ntwo").decode(), "script": b64encode(b"#!/bin/sh\n").decode()}
        task = await harness.submit("ursula", **files)
        for who in ("ursula", "otto"):
            record = await shown_to(harness, who, task)
            assert (record["stdin"], record["script"]) == ("one\ntwo", "#!/bin/sh\n"), who
        record = await shown_to(harness, "vera", task)
        assert (record["stdin"], record["stdin_bytes"], record["stdin_streams"]) == (None, 7, False)
        assert (record["script"], record["script_bytes"]) == (None, 10)
        (listed,) = (await harness.call("otto", "GET", "/api/tasks")).json()
        assert (listed["stdin"], listed["script"], listed["script_bytes"]) == (None, None, 10)

    play(tmp_path, scenario)


def test_a_large_input_is_left_out_of_lists_and_its_size_is_not(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.submit(stdin=b64encode(b"x" * 200_000).decode())
        (listed,) = (await harness.call("otto", "GET", "/api/tasks")).json()
        assert (listed["stdin"], listed["stdin_bytes"], listed["shortened"]) == (None, 200_000, True)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stdin": "no base64!"}, "stdin"),
        ({"script": "YQ"}, "script"),
        ({"stdin": "YQ==", "stdin_streams": True}, "stdin_streams"),
        ({"stdin_streams": True, "retries": 1}, "retries"),
        ({"stdin_streams": True, "targets": ["n1", "n2"]}, "targets"),
        ({"stdin": b64encode(b"x" * (MIB // 4 + 1)).decode()}, "stdin"),
    ],
)
def test_input_that_cannot_be_had_is_refused(tmp_path: Path, fields: dict[str, Any], field: str) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("otto", "POST", "/api/submit", json={"command": "cat", **fields})
        assert answer.status_code == 422
        assert answer.json()["field"] == field

    play(tmp_path, scenario)
