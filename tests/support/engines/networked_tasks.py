"""Tasks on a network of a lab, and what they find there."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from support.engines.labs import DockerLab, ignore

BUSYBOX = "/bin/busybox"


async def outcome(lab: DockerLab, *argv: str, **changes: Any) -> tuple[int, str]:
    """Run a command task to its end; return its exit code and what it said."""
    spec = lab.spec(*argv, **changes)
    await begin(lab, spec)
    result = await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    return result.exit_code, spec.stdout_path.read_text() + spec.stderr_path.read_text()


async def begin(lab: DockerLab, spec: WorkloadSpec) -> Sandbox:
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, spec.attempt)
    sandbox = (await lab.engine.known_containers.find(spec.task_id, spec.attempt)).sandbox
    assert sandbox is not None
    return sandbox


async def begin_sleep(lab: DockerLab, *capabilities: str) -> tuple[WorkloadSpec, Sandbox]:
    spec = lab.spec("/bin/sleep", "600", capabilities=capabilities)
    return spec, await begin(lab, spec)


async def end(lab: DockerLab, *specs: WorkloadSpec) -> None:
    for spec in specs:
        await lab.engine.stop(spec.task_id, spec.attempt, 0)
        await lab.engine.remove(spec.task_id, spec.attempt)


@contextlib.contextmanager
def listening(address: str, port: int = 0) -> Iterator[int]:
    with socket.create_server((address, port), backlog=20) as server:
        yield server.getsockname()[1]
