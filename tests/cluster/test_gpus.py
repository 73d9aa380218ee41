"""GPUs are exclusive: a node with stand-in cards, behind an engine that accepts requests for them."""

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from support import nvml_stand_in
from support.cluster import Cluster
from support.private_docker import NVIDIA_HOOK_DIR, PrivateDocker, private_dockerd

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.xdist_group("gpus"), pytest.mark.timeout(300)]

CACHE = Path(__file__).parents[2] / ".cache"


@pytest.fixture(scope="module")
def gpu_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, PrivateDocker]]:
    root = tmp_path_factory.mktemp("gpus")
    cards = root / "cards.json"
    nvml_stand_in.write_gpus(cards, nvml_stand_in.gpu(0), nvml_stand_in.gpu(1))
    cluster = Cluster(root)
    with private_dockerd(root / "docker", extra_path=[NVIDIA_HOOK_DIR]) as docker:
        environment = {**nvml_stand_in.environment(CACHE, cards), "DOCKER_HOST": docker.url}
        try:
            cluster.start_host()
            cluster.add_runner("kr-gpu", environment=environment)
            yield cluster, docker
        finally:
            cluster.stop()


def test_cards_are_listed_with_their_facts(gpu_node: tuple[Cluster, PrivateDocker]) -> None:
    cluster, _ = gpu_node
    (node,) = cluster.listed_nodes()
    assert [gpu["gpu_id"] for gpu in node["gpu_info"]] == [0, 1]
    assert all(gpu["uuid"].startswith("GPU-") for gpu in node["gpu_info"])


def test_two_tasks_that_name_the_same_card_never_overlap(gpu_node: tuple[Cluster, PrivateDocker]) -> None:
    cluster, _ = gpu_node
    ids = [cluster.submit("sleep", "0.5", targets=["kr-gpu::0"], required_cores=0) for _ in range(4)]
    other = cluster.submit("sleep", "0.5", targets=["kr-gpu"], required_gpus=[[1]], required_cores=0)
    spans = []
    for task_id in ids:
        record = cluster.finished(task_id)
        assert record["status"] == "completed", record["error_message"]
        spans.append(tuple(datetime.fromisoformat(record[key]) for key in ("started_at", "completed_at")))
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    assert cluster.finished(other)["status"] == "completed"


def test_the_engine_is_asked_for_exactly_that_card(gpu_node: tuple[Cluster, PrivateDocker]) -> None:
    cluster, docker = gpu_node
    task_id = cluster.submit("sleep", "600", targets=["kr-gpu::1"])
    cluster.await_state(task_id, "running")
    shown = subprocess.run(
        ["docker", "-H", docker.url, "inspect", f"kohakuriver-task-{task_id}"],
        capture_output=True,
        check=True,
    )
    (request,) = json.loads(shown.stdout)[0]["HostConfig"]["DeviceRequests"]
    uuid = cluster.listed_nodes()[0]["gpu_info"][1]["uuid"]
    assert request["DeviceIDs"] == [uuid]
    (node,) = cluster.listed_nodes()
    assert node["gpus_used"] == [1]
    waiting = cluster.submit("true", targets=["kr-gpu::1"])
    assert "GPU 1 in use" in cluster.status(waiting)["pending_reasons"][0]["reason"]
    for each in (waiting, task_id):
        cluster.client.post(f"/api/kill/{each}")
        cluster.finished(each)


def test_a_card_that_is_not_there_is_refused(gpu_node: tuple[Cluster, PrivateDocker]) -> None:
    cluster, _ = gpu_node
    body = {"task_type": "command", "command": "true", "targets": ["kr-gpu::7"]}
    answer = cluster.client.post("/api/submit", json=body)
    assert answer.status_code == 422
    assert "GPU 7" in answer.json()["detail"]
