"""Programs of this machine in a workload that has none of its own: Python with these tests, and /usr.

A node of the lab has the machine's files, and an operator's workload may have any of a node's folders. So
services need no image, and are those that the machine has.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cluster.cluster import Cluster, wait_for

_TESTS = Path(__file__).parents[2]


def mounts() -> list[str]:
    """Of the machine, read-only, all where they are on it."""
    python = {Path(sys.base_prefix).resolve(), Path(sys.prefix), _TESTS}
    beside = sorted(path for path in python if not path.is_relative_to("/usr"))
    merged = [("/usr/lib", "/lib"), ("/usr/lib64", "/lib64")]
    places = [("/usr", "/usr"), *merged, *((str(path), str(path)) for path in beside)]
    return [f"{source}:{place}:ro" for source, place in places if Path(source).is_dir()]


def python_argv(module: str, *arguments: object) -> list[str]:
    """Run a module of these tests inside."""
    path = f"PYTHONPATH={_TESTS}"
    return ["env", path, "PYTHONUNBUFFERED=1", sys.executable, "-m", module, *map(str, arguments)]


def _begin(cluster: Cluster, node: str, module: str, *arguments: object) -> str:
    program, *rest = python_argv(module, *arguments)
    task_id = cluster.submit(program, *rest, targets=[node], required_cores=0, additional_mounts=mounts())

    def is_ready() -> bool:
        state = cluster.status(task_id)["status"]
        assert state in ("pending", "assigning", "running"), cluster.output(task_id, "stderr").decode()
        return cluster.output(task_id).startswith(b"ready")

    wait_for(is_ready, f"the services of task {task_id}")
    return task_id


@contextmanager
def python_task(cluster: Cluster, node: str, module: str, *arguments: object) -> Iterator[str]:
    """The id of a command task that runs it, once it has said that it is ready; killed at the end."""
    task_id = _begin(cluster, node, module, *arguments)
    try:
        yield task_id
    finally:
        cluster.client.post(f"/api/kill/{task_id}")
        cluster.finished(task_id)
