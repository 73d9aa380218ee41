"""The generator of load on the control plane, small: what it plays is taken for real by a real host."""

import pytest
from bench.clusters import host_alone
from bench.playing import UNTIL_TOLD, Play, playing
from bench.scale.cluster_figures import read, scrape
from bench.scale.followers import Following, followers
from bench.seeding import Seed

from support.cluster import free_port, wait_for

pytestmark = pytest.mark.docker

NODES, RUNNING = 10, 100


def test_played_runners_carry_a_seeded_queue_through_a_restart_of_the_host() -> None:
    with host_alone(Seed(past=500, queued=200)) as cluster:
        play = Play(
            cluster.port,
            cluster.token,
            free_port(),
            nodes=NODES,
            beat_seconds=1,
            task_seconds=UNTIL_TOLD,
            own_addresses=True,
        )
        with playing(play) as runners:
            runners.await_running(RUNNING)
            assert [node["status"] for node in cluster.listed_nodes()] == ["online"] * NODES
            before = read(cluster)
            runners.end_tasks(30, over_seconds=0.3)
            runners.await_done(30)
            wait_for(lambda: read(cluster).since(before).placements >= 30, "the next 30 to be placed")
            told = scrape(cluster)
            assert told["kohakuriver_queued_tasks"] == 200 - RUNNING - 30
            assert cluster.host is not None
            cluster.host.end()
            cluster.start_host()
            wait_for(
                lambda: [node["status"] for node in cluster.listed_nodes()] == ["online"] * NODES,
                "all nodes to be back",
            )
            runners.end_tasks(20, over_seconds=0.1)
            runners.await_done(50)
            completed = cluster.api("GET", "/api/tasks", params={"status": "completed", "limit": 1000})
            assert len(completed) == 50 + 425, "of the 500 past tasks 17 in 20 are completed"


def test_followers_of_events_and_output_all_get_the_same() -> None:
    with host_alone() as cluster:
        play = Play(cluster.port, cluster.token, free_port(), nodes=1, task_seconds=UNTIL_TOLD)
        with playing(play) as runners:
            task_id = cluster.submit("true")
            runners.await_running(1)
            log = cluster.shared / "logs" / task_id / "stdout.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
            with followers(Following(cluster.port, cluster.token, 20, 20, task_id)) as watching:
                log.write_bytes(b"x" * 5000)
                runners.end_tasks(1, over_seconds=0)
                cluster.finished(task_id)
                told = "kohakuriver_events_published_total"
                wait_for(lambda: scrape(cluster)[told] >= 1, "the end to be told to the followers of events")
                followed = watching.finish()
    assert followed.event_bytes[0] == followed.event_bytes[1] > 0
    assert followed.output_bytes[0] == followed.output_bytes[1] >= 5000
