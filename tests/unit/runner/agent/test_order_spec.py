"""What an execute order becomes on a node, and what the runner refuses by itself."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.tasks.orders import order_message
from kohakuriver.host.store.records import OrderRow
from kohakuriver.models.abilities import Ability
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import OrderKind, PullPolicy, TaskState, TaskType
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.mounts import Mount, parse_mount
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.spec.task_files import SCRIPT_PLACE, TaskFile
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.vps import VpsSpec
from kohakuriver.runner.agent.order_spec import NodeFacts, of_this_version, order_to_spec
from kohakuriver.runner.engines.contract.abilities import ANNOUNCED, needed_for
from kohakuriver.runner.engines.contract.spec import CpuBinding, ImageChoice, UserIds, WorkloadSpec
from kohakuriver.wire.messages import Order, decode, encode
from support.runner.agent_world import FACTS, execute, settings_in

SETTINGS = settings_in(Path("/srv"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NO_STORAGE = replace(FACTS, shared_storage=False)


def spec_of(facts: NodeFacts = FACTS, **fields: Any) -> WorkloadSpec:
    return order_to_spec(execute(**fields), facts, SETTINGS)


def test_a_plain_order() -> None:
    spec = spec_of(
        command="sh", arguments=["-c", "echo $0; é"], required_cores=2, required_memory_bytes=1 << 28
    )
    assert spec.argv == ("sh", "-c", "echo $0; é")
    assert (spec.task_id, spec.attempt, spec.cores, spec.memory_bytes) == (7, 1, 2, 1 << 28)
    assert spec.body.image == ImageChoice(environment="base")
    assert spec.working_dir == "/shared"
    assert spec.mounts == (
        Mount("/srv/shared/shared_data", "/shared"),
        Mount("/srv/local/workloads/data", "/local_temp"),
    )
    assert (spec.binding, spec.gpus, spec.body.privileged) == (None, (), False)


def test_who_asks_for_no_memory_gets_a_share_of_what_there_is_for_it() -> None:
    settings = replace(SETTINGS, default_memory_limit=0.5)

    def limit(**fields: Any) -> int:
        return order_to_spec(execute(**fields), FACTS, settings).memory_bytes

    assert limit() == limit(required_memory_bytes=0) == 8 << 30
    assert limit(target_numa_node_id=0) == 4 << 30
    assert limit(required_memory_bytes=15 << 30) == 15 << 30
    settings = replace(SETTINGS, default_memory_limit=1e-9)
    assert limit() == 16 << 20
    assert spec_of().memory_bytes == 0


def test_a_limit_of_processes_is_the_nodes() -> None:
    settings = replace(SETTINGS, pids_limit=77)
    assert order_to_spec(execute(), FACTS, settings).body.pids_limit == 77
    assert spec_of().body.pids_limit == 0


def test_a_user_that_is_not_root_has_a_home_and_begins_there_without_shared_storage() -> None:
    settings = replace(SETTINGS, user=UserIds(1000, 1000, name="ann"))
    spec = order_to_spec(execute(env_vars={"LOGNAME": "mine"}), NO_STORAGE, settings)
    env = dict(spec.env)
    assert (env["HOME"], env["USER"], env["LOGNAME"]) == ("/home/ann", "ann", "mine")
    assert spec.working_dir == "/home/ann"
    assert order_to_spec(execute(), FACTS, settings).working_dir == "/shared"
    of_root = order_to_spec(execute(), NO_STORAGE, replace(SETTINGS, user=UserIds(0, 0)))
    assert (of_root.working_dir, dict(of_root.env).get("HOME")) == ("/", None)


def test_shared_memory_is_half_of_the_memory_and_locked_memory_is_free_beside_gpus() -> None:
    def options(**fields: Any) -> ContainerOptions:
        return spec_of(**fields).body.options

    assert options(required_memory_bytes=1 << 30).shm_size_bytes == 1 << 29
    assert options(required_memory_bytes=1 << 26).shm_size_bytes == 64 << 20
    assert options().shm_size_bytes == 8 << 30
    asked = ContainerOptions(shm_size_bytes=5 << 20, ulimits=("nofile=9",), ipc="none")
    given = options(options=asked, required_memory_bytes=1 << 30)
    assert (given.shm_size_bytes, given.ulimits, given.ipc) == (5 << 20, ("nofile=9:9",), "none")
    assert options(required_gpus=[0]).ulimits == ("memlock=-1:-1",)
    chosen = ContainerOptions(ulimits=("memlock=5",))
    assert options(required_gpus=[0], options=chosen).ulimits == ("memlock=5:5",)
    bounded = order_to_spec(execute(required_gpus=[0]), FACTS, replace(SETTINGS, memlock_bytes=4096))
    assert bounded.body.options.ulimits == ("memlock=4096:4096",)


def test_parts_of_a_core_arrive_as_they_were_asked_for() -> None:
    asked = TaskSpec("x", required_cores=1.25)
    task = Task(TaskId(7), asked, TaskState.ASSIGNING, "ann", NOW, attempt=Attempt(1, "n1"))
    order = order_message(OrderRow(5, "n1", TaskId(7), 1, OrderKind.EXECUTE, NOW), task, "base")
    assert (order.required_cores, order.cores_thousandths) == (2, 1250)
    assert spec_of(required_cores=2, cores_thousandths=1250).cores == 1.25
    with pytest.raises(InvalidInput, match="two numbers"):
        spec_of(required_cores=2, cores_thousandths=2001)


def test_nobody_is_another_user_where_tasks_are_not_root() -> None:
    settings = replace(SETTINGS, user=UserIds(1000, 100, name="ann"))
    for user in ("ann", "1000", "1000:100"):
        order = execute(options=ContainerOptions(user=user))
        assert order_to_spec(order, FACTS, settings).body.options.user == ""
    for user in ("root", "0", "0:0", "1001", "ann:0", "1000:0", "bob"):
        with pytest.raises(InvalidInput, match="run as ann"):
            order_to_spec(execute(options=ContainerOptions(user=user)), FACTS, settings)
    of_root = replace(SETTINGS, user=UserIds(0, 0))
    order = execute(options=ContainerOptions(user="bob"))
    assert order_to_spec(order, FACTS, of_root).body.options.user == "bob"


def test_an_order_without_a_command_takes_the_images() -> None:
    fields: dict[str, Any] = {"command": "", "container_name": None, "registry_image": "debian:12"}
    spec = spec_of(**fields, arguments=["-x"])
    assert (spec.argv, spec.body.image_command, spec.body.image_folder) == (("-x",), True, True)
    assert spec_of(**fields, working_dir="/w").body.image_folder is False
    plain = spec_of(container_name=None, registry_image="debian:12")
    assert (plain.body.image_command, plain.body.image_folder) == (False, False)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"script": TaskFile.of(b"#!/bin/sh")},
        {"stdin": TaskFile.of(b"")},
        {"stdin": TaskFile(streams=True)},
        {"command": "", "task_type": TaskType.VPS, "vps": VpsSpec()},
    ],
)
def test_a_node_is_chosen_by_what_its_engine_must_be_able_to_do(more: dict[str, Any]) -> None:
    asked = TaskSpec(**{"command": "cat", **more})
    task = Task(TaskId(7), asked, TaskState.ASSIGNING, "ann", NOW, attempt=Attempt(1, "n1"))
    order = order_message(OrderRow(5, "n1", TaskId(7), 1, OrderKind.EXECUTE, NOW), task, "base")
    needed = {ANNOUNCED[ability] for ability in needed_for(order_to_spec(order, FACTS, SETTINGS))}
    assert asked.demand.needs == {Ability.SHARED_STORAGE} | needed


def test_all_that_a_task_asks_for_arrives() -> None:
    asked = TaskSpec(
        "prog",
        arguments=("-x",),
        env_vars=(("A", "1"),),
        required_cores=1.5,
        required_memory_bytes=1 << 30,
        required_gpus=(1,),
        target=Target("n1", 1),
        registry_image="debian:12",
        working_dir="/w",
        privileged=True,
        capabilities=("NET_RAW",),
        additional_mounts=("/a:/b:ro",),
        grace_seconds=9,
        stdin=TaskFile.of(b"input"),
        script=TaskFile.of(b"#!/bin/sh\n"),
        options=ContainerOptions(
            shm_size_bytes=5 << 20,
            ulimits=("memlock=7:7", "nofile=9:9"),
            ipc="none",
            devices=("/dev/fuse:/dev/fuse:rwm",),
            user="7:8",
            hostname="box",
        ),
        pull=PullPolicy.ALWAYS,
    )
    task = Task(TaskId(7), asked, TaskState.ASSIGNING, "ann", NOW, attempt=Attempt(1, "n1"))
    order = order_message(OrderRow(5, "n1", TaskId(7), 1, OrderKind.EXECUTE, NOW), task, "base")
    spec = order_to_spec(decode(encode(order), Order), FACTS, SETTINGS)
    assert (spec.argv, dict(spec.env)["A"]) == ((SCRIPT_PLACE, "-x"), "1")
    assert (spec.cores, spec.memory_bytes, [gpu.index for gpu in spec.gpus]) == (1.5, 1 << 30, [1])
    assert spec.binding == CpuBinding((4, 5, 6, 7), (1,))
    assert spec.body.image == ImageChoice(registry_image="debian:12", pull=PullPolicy.ALWAYS)
    assert (spec.working_dir, spec.body.privileged, spec.body.capabilities) == ("/w", True, ("NET_RAW",))
    assert Mount("/a", "/b", read_only=True) in spec.mounts
    assert (spec.grace_seconds, spec.stdin, spec.script) == (9, b"input", b"#!/bin/sh\n")
    assert spec.body.options == asked.options
    streamed = changed(asked, stdin=TaskFile(streams=True), script=None)
    task = Task(TaskId(7), streamed, TaskState.ASSIGNING, "ann", NOW, attempt=Attempt(1, "n1"))
    order = order_message(OrderRow(5, "n1", TaskId(7), 1, OrderKind.EXECUTE, NOW), task, "base")
    spec = order_to_spec(decode(encode(order), Order), FACTS, SETTINGS)
    assert (spec.argv, spec.stdin_streams, spec.stdin) == (("prog", "-x"), True, None)


def test_our_variables_come_first_and_the_users_own_win() -> None:
    spec = spec_of(env_vars={"B": "2", "KOHAKURIVER_SHARED_DIR": "/mine", "A": "1"}, target_numa_node_id=1)
    assert spec.env == (
        ("KOHAKURIVER_TASK_ID", "7"),
        ("KOHAKURIVER_ATTEMPT", "1"),
        ("KOHAKURIVER_LOCAL_TEMP_DIR", "/local_temp"),
        ("KOHAKURIVER_SHARED_DIR", "/mine"),
        ("KOHAKURIVER_TARGET_NUMA_NODE", "1"),
        ("B", "2"),
        ("A", "1"),
    )


def test_a_numa_node_pins_cpus_and_memory_together() -> None:
    assert spec_of(target_numa_node_id=1).binding == CpuBinding((4, 5, 6, 7), (1,))


def test_gpus_are_taken_by_index_in_the_order_asked_for() -> None:
    assert [gpu.uuid for gpu in spec_of(required_gpus=[1, 0]).gpus] == ["GPU-b", "GPU-a"]


def test_without_shared_storage_the_work_stays_local() -> None:
    spec = spec_of(NO_STORAGE, registry_image="alpine:3", container_name=None, pull=PullPolicy.ALWAYS)
    assert spec.body.image == ImageChoice(registry_image="alpine:3", pull=PullPolicy.ALWAYS)
    assert spec.working_dir == "/"
    assert [mount.destination for mount in spec.mounts] == ["/local_temp"]
    assert spec.stdout_path == Path("/srv/local/logs/7/stdout.log")
    assert spec.output_starts == (Path("/srv/shared"), Path("/srv/local"))


def test_each_attempt_writes_to_its_own_folder_and_to_no_other() -> None:
    second = "/srv/shared/logs/7/attempt-2/stdout.log"
    assert spec_of(attempt=2, stdout_path=second).stdout_path == Path(second)
    assert spec_of(attempt=2).stderr_path == Path("/srv/local/logs/7/attempt-2/stderr.log")
    for attempt, path in ((1, second), (3, second), (2, "/srv/shared/logs/7/stdout.log")):
        with pytest.raises(InvalidInput, match="not within"):
            spec_of(attempt=attempt, stdout_path=path)


def test_output_goes_where_the_host_says_within_the_tasks_own_folder() -> None:
    spec = spec_of(stdout_path="/srv/shared/logs/7/stdout.log", stderr_path="/srv/shared/logs/7/stderr.log")
    assert spec.stdout_path == Path("/srv/shared/logs/7/stdout.log")
    assert spec.stderr_path == Path("/srv/shared/logs/7/stderr.log")


def test_the_nodes_settings_have_their_effect() -> None:
    settings = replace(
        SETTINGS,
        additional_mounts=(parse_mount("/data:/data:ro"),),
        default_working_dir="/work",
        tasks_privileged=True,
        user=UserIds(1000, 100, (100, 27)),
    )
    spec = order_to_spec(execute(additional_mounts=["/x:/y"]), FACTS, settings)
    assert spec.mounts[-2:] == (Mount("/data", "/data", True), Mount("/x", "/y"))
    assert (spec.working_dir, spec.body.privileged, spec.user) == (
        "/work",
        True,
        UserIds(1000, 100, (100, 27)),
    )
    assert order_to_spec(execute(privileged=True), FACTS, SETTINGS).body.privileged
    wanted = execute(capabilities=["NET_RAW"])
    assert order_to_spec(wanted, FACTS, SETTINGS).body.capabilities == ("NET_RAW",)
    assert order_to_spec(execute(working_dir="/own"), FACTS, settings).working_dir == "/own"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"required_gpus": [2]}, "no GPU 2"),
        ({"required_gpus": [0, 0]}, "twice"),
        ({"target_numa_node_id": 2}, "no NUMA node 2"),
        ({"required_cores": 9}, "has 8"),
        ({"required_cores": 5, "target_numa_node_id": 0}, "has 4"),
        ({"required_memory_bytes": 17 << 30}, "memory"),
        ({"required_memory_bytes": 9 << 30, "target_numa_node_id": 0}, "NUMA node 0"),
        ({"attempt": 0}, "attempt"),
        ({"command": ""}, "command"),
        ({"options": ContainerOptions(shm_size_bytes=17 << 30)}, "/dev/shm"),
        ({"options": ContainerOptions(ulimits=("nofile=1:0",))}, "nofile"),
        ({"options": ContainerOptions(ipc="container:1")}, "IPC"),
        ({"options": ContainerOptions(devices=("/dev/../etc",))}, "device"),
        ({"options": ContainerOptions(hostname="a/b")}, "host name"),
        ({"options": ContainerOptions(user="a\nb")}, "USER"),
        ({"command": "a\0b"}, "NUL"),
        ({"arguments": ["a\0"]}, "NUL"),
        ({"env_vars": {"A": "b\0"}}, "NUL"),
        ({"env_vars": {"A=B": "c"}}, "environment variable"),
        ({"env_vars": {"": "c"}}, "environment variable"),
        ({"container_name": "../x"}, "environment's name"),
        ({"container_name": "--privileged"}, "environment's name"),
        ({"capabilities": ["ALL"]}, "capability"),
        ({"container_name": None}, "either"),
        ({"registry_image": "alpine"}, "either"),
        ({"container_name": None, "registry_image": "http://x/y"}, "image reference"),
        ({"additional_mounts": ["/a,ro:/b"]}, "comma"),
        ({"additional_mounts": ["/a/../etc:/b"]}, ".."),
        ({"additional_mounts": ["a:/b"]}, "absolute"),
        ({"additional_mounts": ["/a:/shared"]}, "something else"),
        ({"additional_mounts": ["/a:/b", "/c:/b/"]}, "something else"),
        ({"working_dir": "relative"}, "absolute"),
        ({"working_dir": "/a\nb"}, "absolute"),
        ({"stdout_path": "/etc/passwd"}, "not within"),
        ({"stdout_path": "/srv/shared/logs/8/stdout.log"}, "not within"),
        ({"stdout_path": "/srv/shared/logs/7/../8/stdout.log"}, "not within"),
        ({"stdout_path": "/srv/shared/logs/7/output.times"}, "where its times lie"),
        ({"stdout_path": "/srv/shared/logs/7/.."}, "not within"),
        ({"stdout_path": "/srv/shared/logs/7"}, "not within"),
        ({"stdout_path": ""}, "not within"),
        ({"stdout_path": "/srv/local/logs/7/x", "stderr_path": "/srv/local/logs/7/x"}, "two files"),
        ({"reserved_ip": "10.0.0.1"}, "reserved"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace(".", r"\.")):
        spec_of(**fields)


def test_output_into_storage_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not have the cluster's shared storage"):
        spec_of(NO_STORAGE, stdout_path="/srv/shared/logs/7/stdout.log")


def test_a_spec_that_an_earlier_version_wrote_down_gets_the_folder_that_holds_no_output() -> None:
    now = spec_of()
    then = replace(
        now,
        mounts=(Mount("/srv/shared/shared_data", "/shared"), Mount("/srv/local", "/local_temp")),
        output_starts=(),
    )
    assert of_this_version(then, SETTINGS) == now
    assert of_this_version(now, SETTINGS) == now
