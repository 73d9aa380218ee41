"""The composition root's part that makes the settings of single parts from those of the runner."""

from pathlib import Path

from kohakuriver.config import RunnerConfig
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.agent.order_spec import LOCAL_TEMP, SHARED_DATA, TaskSettings
from kohakuriver.runner.docker_parts import DockerPartsSettings
from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedFolder
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.local_temp import DATA, WORKLOADS, data_folder, homes_folder
from kohakuriver.runner.network.egress_rules import EgressSettings
from kohakuriver.runner.rights import locked_memory_limit
from kohakuriver.runner.tasks_user import tasks_user
from kohakuriver.runner.tunnels.client_program import TunnelClient


def task_settings(config: RunnerConfig) -> TaskSettings:
    return TaskSettings(
        shared_dir=Path(config.shared_dir),
        local_temp_dir=Path(config.local_temp_dir),
        additional_mounts=config.mounts,
        default_working_dir=config.default_working_dir,
        tasks_privileged=config.tasks_privileged,
        user=tasks_user(config.runner_user),
        auto_restore=config.auto_restore_on_create,
        pids_limit=config.task_pids_limit,
        memlock_bytes=locked_memory_limit(),
        default_memory_limit=config.default_memory_limit,
    )


def docker_settings(
    config: RunnerConfig, client: TunnelClient, hostname: str, state: Path
) -> DockerPartsSettings:
    place = RunnerPlace(config.docker_network_gateway, config.runner_port) if client.path else None
    return DockerPartsSettings(
        engine=DockerEngineSettings(
            node_name=hostname,
            network_name=config.docker_network_name,
            network_subnet=config.docker_network_subnet,
            network_gateway=config.docker_network_gateway,
            state_dir=state,
            pool_size=config.sandbox_pool_size,
            guarded_folders=(
                GuardedFolder("shared", Path(config.shared_dir), (SHARED_DATA,)),
                GuardedFolder("local_temp", Path(config.local_temp_dir), (WORKLOADS, DATA)),
            ),
            homes_folder=homes_folder(Path(config.local_temp_dir)),
            egress=EgressSettings(
                config.workload_egress_deny,
                config.runner_port,
                *config.host_place,
                endpoints_at=place.address if place else "",
            ),
            tunnels_to=place,
            tunnel_client=client.path,
        ),
        tarball_dir=Path(config.tarball_dir),
        canary_folder=Mount(str(data_folder(Path(config.local_temp_dir))), LOCAL_TEMP),
        sync_timeout_seconds=config.docker_image_sync_timeout,
        local_images=config.local_images,
    )
