"""kill -9 of host and runner at every step where something has just become true, or is about to."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault.campaign_checks import violations
from fault.campaign_record import CampaignRecord
from fault.crash_scenarios import Scenario, Trigger, scenarios
from fault.crash_stage import CrashStage, see_dead, start_again, start_armed
from fault.evidence import opened_store
from kohakuriver.host.store.migrate import NEWEST
from support.cluster.cluster import Cluster
from support.host.old_databases import make_old_database

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(400)]

_NODE = f"kr-crash-{os.getpid()}"
_OLD_CLUSTER = "0123456789abcdef"
_UNDER_TASKS = (Trigger.TASKS, Trigger.NEW_IMAGE, Trigger.STOP)
# Nobody's silence moves a task here: what a death leads to must not depend on how fast the machine is.
_PATIENT = {"HEARTBEAT_TIMEOUT_FACTOR": 100}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashStage]:
    cluster = Cluster(tmp_path_factory.mktemp("crash"))
    made: CrashStage | None = None
    try:
        cluster.start_host(**_PATIENT)
        cluster.add_runner(_NODE, SANDBOX_POOL_SIZE=2)
        made = CrashStage(cluster, _NODE)
        yield made
    finally:
        cluster.stop()
        if made is not None:
            made.clear_images()


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.trigger in _UNDER_TASKS], ids=str)
def test_a_daemon_that_dies_there_leaves_every_promise_kept(stage: CrashStage, scenario: Scenario) -> None:
    _assert_promises(stage.run(scenario))


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.trigger is Trigger.FIRST_START], ids=str)
@pytest.mark.parametrize("is_upgrade", [False, True], ids=["new", "upgrade"])
def test_a_host_that_dies_while_it_makes_its_tables_starts_with_whole_ones(
    tmp_path: Path, scenario: Scenario, is_upgrade: bool
) -> None:
    cluster, database = Cluster(tmp_path), tmp_path / "state" / "kohakuriver.db"
    try:
        host = cluster.start_host()
        host.end()
        for path in database.parent.glob("kohakuriver.db*"):
            path.unlink()
        if is_upgrade:
            make_old_database(database, "0001", [("meta", {"key": "cluster_id", "value": _OLD_CLUSTER})])
        start_armed(host, scenario)
        see_dead(host, scenario)
        start_again(host, scenario)
        cluster.await_health()
        cluster.submit("true")
        with opened_store(database) as store:
            assert store("PRAGMA integrity_check") == [("ok",)]
            assert store("SELECT version_num FROM alembic_version") == [(NEWEST,)]
            ((cluster_id,),) = store("SELECT value FROM meta WHERE key = 'cluster_id'")
        assert (cluster_id == _OLD_CLUSTER) is is_upgrade
    finally:
        cluster.stop()


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.trigger is Trigger.ENROLMENT], ids=str)
def test_a_host_that_dies_while_it_takes_in_a_node_has_taken_it_in_once(
    tmp_path: Path, scenario: Scenario
) -> None:
    cluster = Cluster(tmp_path)
    try:
        host = cluster.start_host(**_PATIENT)
        token = cluster.join_token()
        host.end(signal.SIGKILL)
        start_armed(host, scenario)
        cluster.add_runner(f"{_NODE}-new", join=False, JOIN_TOKEN=token)
        see_dead(host, scenario)
        start_again(host, scenario)
        cluster.await_health()
        cluster.await_node(f"{_NODE}-new")
        task_id = cluster.submit("echo", "here")
        assert cluster.finished(task_id)["status"] == "completed"
        assert len(cluster.listed_nodes()) == 1
    finally:
        cluster.stop()


def _assert_promises(record: CampaignRecord) -> None:
    told = "\n".join([*violations(record), *record.complaints])
    assert not violations(record), told
    # Without these the checks above could have had nothing to look at.
    assert len(record.accepted()) == 3, told
    assert {task.attempt for task in record.tasks} == {1}, record.tasks
    assert {line.event for line in record.trace} == {"start", "end"}
