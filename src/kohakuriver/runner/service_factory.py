"""The composition root's part that joins what the host asks about, beside orders, with what it looks at."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.docker_parts import DockerParts
from kohakuriver.runner.images.unused_images import ImageNeeds
from kohakuriver.runner.leftovers import LeftoverParts, LeftoverService
from kohakuriver.runner.vps_service import VpsService, VpsServiceParts
from kohakuriver.wire.leftovers import RemovalRequest


@dataclass(frozen=True, slots=True)
class ServiceFactory:
    """`shared_dir` gives SHARED_DIR if it is the cluster's, None otherwise. `keep`: MAX_SNAPSHOTS_PER_VPS."""

    agent: Agent
    docker: DockerParts
    shared_dir: Callable[[], Path | None]
    local_temp_dir: Path
    keep: int

    def vps(self) -> VpsService:
        return VpsService(
            VpsServiceParts(
                self.agent.engines.of,
                self.agent.engines.all,
                self.agent.current_attempt,
                self._held_tasks,
                self.keep,
                self.shared_dir,
                self.local_temp_dir,
            )
        )

    def leftovers(self) -> LeftoverService:
        return LeftoverService(
            LeftoverParts(
                self.vps(),
                self._held_tasks,
                self.shared_dir,
                self.local_temp_dir,
                self._sweep_images,
                self.docker.oldest_workload,
            )
        )

    def _held_tasks(self) -> set[int]:
        """Tasks of which something runs here, or is still to be removed or reported."""
        return {int(held.task_id) for held in self.agent.attempts()[0]}

    def _sweep_images(self, request: RemovalRequest) -> Awaitable[tuple[int, int]]:
        needs = ImageNeeds(request.needed_images, request.environments)
        return self.docker.sweep_images(request.images_days, needs, removes=not request.dry_run)
