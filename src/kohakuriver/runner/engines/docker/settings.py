"""What the Docker engine needs to know of this node; the composition root fills it from the configuration."""

from dataclasses import dataclass, field
from pathlib import Path

from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedFolder
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace
from kohakuriver.runner.network.docker_network import WantedNetwork
from kohakuriver.runner.network.egress_rules import EgressSettings


@dataclass(frozen=True, slots=True)
class DockerEngineSettings:
    """`state_dir` is private to this runner and on the engine's machine (files in it are mounted).

    `pool_size` sandboxes are kept ready; 0: each is made on demand and used once. Idle sandboxes beyond the
    pool size, left from a burst, are removed after `idle_trim_seconds`. `guarded_folders` are given to
    workloads through mounts of the runner's own (`guarded_binds`). `homes_folder` is for the home folders of
    tasks whose user is not root; None: they have none. `cluster_ids`: see `labels.Owner`. `tunnels_to`: where
    the clients of sandboxes connect to; None: there are none. `tunnel_client`: the program that is one.
    """

    node_name: str
    network_name: str
    network_subnet: str
    network_gateway: str
    state_dir: Path
    pool_size: int = 2
    idle_trim_seconds: float = 20.0
    guarded_folders: tuple[GuardedFolder, ...] = ()
    homes_folder: Path | None = None
    egress: EgressSettings = field(default_factory=EgressSettings)
    cluster_ids: tuple[str, ...] = ()
    tunnels_to: RunnerPlace | None = None
    tunnel_client: Path | None = None

    @property
    def wanted_network(self) -> WantedNetwork:
        return WantedNetwork(
            self.network_name,
            self.network_subnet,
            self.network_gateway,
            self.node_name,
            self.cluster_ids,
        )
