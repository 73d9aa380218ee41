"""The composition root's part that joins the removal of leftovers with what it looks at."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.config import HostConfig
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.cluster_control import ClusterControl
from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.host.retention import (
    NodeParts,
    OutputFolders,
    Retention,
    RetentionParts,
    RetentionRules,
)
from kohakuriver.host.shared_storage import is_this_clusters
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import KohakuRiverError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetentionNeighbours:
    """The parts of the host that know what lives."""

    store: Store
    control: ClusterControl
    environments: EnvironmentService
    runners: Runners


def retention_of(config: HostConfig, neighbours: RetentionNeighbours) -> Retention:
    shared = Path(config.shared_dir)
    control = neighbours.control

    def outputs() -> OutputFolders | None:
        return OutputFolders(shared) if is_this_clusters(shared, control.cluster_id) else None

    return Retention(
        RetentionParts(
            neighbours.store,
            _rules(config),
            outputs,
            Clock(),
            control.tasks.records_removed,
            _nodes(config, neighbours),
        )
    )


def _rules(config: HostConfig) -> RetentionRules:
    return RetentionRules(
        output=config.keep_output_days,
        tasks=config.keep_tasks_days,
        events=config.keep_events_days,
        snapshots=config.keep_snapshots_days,
        images=config.keep_images_days,
        local_temp=config.keep_local_temp_days,
    )


def _nodes(config: HostConfig, neighbours: RetentionNeighbours) -> NodeParts:
    control = neighbours.control

    def online() -> list[str]:
        openness = control.nodes.openness()
        return sorted(name for name, (status, _) in openness.items() if status is NodeStatus.ONLINE)

    async def needed_images() -> set[str]:
        return await control.tasks.wanted_images() | {config.default_container_name}

    async def environments() -> list[str] | None:
        """None also where there are none: a folder that is not mounted looks like that."""
        try:
            found = await neighbours.environments.list_tarballs()
        except KohakuRiverError as error:
            log.warning("environments_not_listed", reason=str(error))
            return None
        return sorted(environment.name for environment in found) or None

    return NodeParts(online, neighbours.runners.call, needed_images, environments)
