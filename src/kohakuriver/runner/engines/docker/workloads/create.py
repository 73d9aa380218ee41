"""Making a workload's container, also where an earlier call to make it was cut off."""

import asyncio
from collections.abc import Mapping
from typing import Any

from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.names import task_container_name, vps_container_name
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers

# How long the engine may go on with a call whose client is gone.
MAKING_SECONDS = 30.0
PAUSE_SECONDS = 0.1


def container_name(spec: WorkloadSpec) -> str:
    return task_container_name(spec.task_id) if spec.session is None else vps_container_name(spec.task_id)


async def create_anew(workloads: WorkloadContainers, spec: WorkloadSpec, body: Mapping[str, Any]) -> str:
    """Return the id of a container that was never started; one that an earlier call left is removed.

    Raises Conflict where the name is taken by anything else.
    """
    deadline = asyncio.get_running_loop().time() + MAKING_SECONDS
    while True:
        try:
            return await workloads.create(container_name(spec), body)
        except Conflict:
            facts = await _left_behind(workloads, spec)
            if facts is None and asyncio.get_running_loop().time() > deadline:
                raise
            if facts is not None and (
                facts.state is not WorkloadState.CREATED or facts.attempt > spec.attempt
            ):
                raise
        if facts is None:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            await workloads.remove(facts.id)


async def _left_behind(workloads: WorkloadContainers, spec: WorkloadSpec) -> Inspected | None:
    """What has the name; None while the engine still makes it."""
    try:
        return await workloads.inspect(container_name(spec))
    except NotFound:
        return None
