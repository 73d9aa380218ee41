"""What tunnel clients in sandboxes cost the tasks of a cluster: nothing, whether they work or not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster.cluster import Cluster, wait_for
from support.tunnel.services import CLIENT

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

TASKS = 60
WITH, WITHOUT = "kr-with", "kr-without"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("tunnels"))
    try:
        cluster.start_host()
        cluster.add_runner(WITH)
        cluster.add_runner(WITHOUT, TUNNEL_ENABLED=False)
        yield cluster
    finally:
        cluster.stop()


def sandboxes_of_tasks(cluster: Cluster, node: str) -> list[str]:
    """Run short tasks on a node; returns the names that they have in their sandboxes, which are those'."""
    submitted = [
        cluster.submit("cat", "/etc/hostname", targets=[node], required_cores=1) for _ in range(TASKS)
    ]
    for task_id in submitted:
        record = cluster.finished(task_id, 120)
        assert record["status"] == "completed", record["error_message"]
    return [cluster.output(task_id).decode() for task_id in submitted]


@pytest.mark.parametrize("node", [WITH, WITHOUT])
def test_short_tasks_use_their_sandboxes_again(nodes: Cluster, node: str) -> None:
    used = sandboxes_of_tasks(nodes, node)
    assert len(set(used)) <= TASKS / 5
    assert "sandbox_not_clean" not in nodes.runners[node].log.read_text()


def test_a_client_that_never_connects_is_shown_and_holds_nothing_up(nodes: Cluster, tmp_path: Path) -> None:
    astray = tmp_path / "tunnel-client"
    astray.write_bytes(CLIENT.read_bytes().replace(b"/ws/tunnel/", b"/ws/astray/"))
    astray.chmod(0o755)
    nodes.add_runner("kr-astray", TUNNEL_CLIENT_PATH=str(astray))
    assert len(sandboxes_of_tasks(nodes, "kr-astray")) == TASKS

    def is_shown() -> bool:
        return "the tunnel client does not connect in" in " ".join(nodes.await_node("kr-astray")["notices"])

    wait_for(is_shown, "a notice of the node")
    shown = nodes.await_node("kr-astray")
    assert (shown["faults"], shown["closed_reason"]) == ([], "")
    assert len(sandboxes_of_tasks(nodes, "kr-astray")) == TASKS
