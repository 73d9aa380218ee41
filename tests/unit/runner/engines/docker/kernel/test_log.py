"""The kernel's log as a witness of its OOM killer: the container that it names, and no other."""

from pathlib import Path

import pytest

from kohakuriver.runner.engines.docker.kernel.log import names_container, oom_killed_in

ONE, OTHER = "327459bc8038", "ffffffffffff"
RECORDED = (
    b"6,2188,6675753118,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=327459bc8038,"
    b"mems_allowed=0,oom_memcg=/docker/327459bc8038,task_memcg=/docker/327459bc8038,task=sh,pid=3244,uid=0\n"
)
OF_THE_MACHINE = (
    b"6,2188,6675753118,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=327459bc8038,"
    b"mems_allowed=0,global_oom,task_memcg=/docker/327459bc8038,task=sh,pid=3244,uid=0\n"
)
SYSTEMD = RECORDED.replace(
    b"oom_memcg=/docker/327459bc8038", b"oom_memcg=/system.slice/docker-327459bc8038.scope"
)
OF_ANOTHER = RECORDED.replace(b"oom_memcg=/docker/327459bc8038", b"oom_memcg=/docker/ffffffffffff")
SAID_BY_A_NAME = b"4,9,9,-;sh invoked oom-killer: oom_memcg=/docker/327459bc8038\n"


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (RECORDED, True),
        (SYSTEMD, True),
        (OF_THE_MACHINE, False),
        (OF_ANOTHER, False),
        (SAID_BY_A_NAME, False),
        (b"6,1,1,-;eth0: link becomes ready\n", False),
        (b"", False),
    ],
)
def test_only_the_control_group_whose_limit_was_reached_counts(record: bytes, named: bool) -> None:
    assert names_container(record, ONE) is named


def test_a_log_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_bytes(RECORDED)
    assert oom_killed_in(ONE, log)
    assert not oom_killed_in(OTHER, log)


def test_a_log_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    assert not oom_killed_in(ONE, tmp_path / "none")
