"""The body of the engine's container-create call for one workload (Engine API 1.41); pure.

Rules: the command is an argument vector, and the image's entry point, health check and stop signal have no
say (`image_command` has put the first into the vector where it was asked for); paths travel in the structured
`Mounts` list, never in a comma or colon separated string; memory has no swap beside it; the log is the
engine's `local` journal in one file without an end, because it is what the output is copied from (`json-file`
replaces bytes that are not UTF-8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kohakuriver.models.enums import TaskType
from kohakuriver.models.resources import Gpu
from kohakuriver.models.spec.container_options import parse_device, parse_ulimit
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.inside.of_vps import USER as VPS_USER
from kohakuriver.runner.engines.docker.inside.own_folder import engines_folder, process_in_folder
from kohakuriver.runner.engines.docker.labels import Owner, workload_labels
from kohakuriver.runner.engines.docker.workloads.rights import (
    added_capabilities,
    dropped_capabilities,
    has_network_rights,
)

# One file that never rotates; the engine takes sizes up to an exabyte.
LOG_CONFIG = {"Type": "local", "Config": {"max-size": "1000p", "max-file": "1", "compress": "false"}}
OOM_SCORE_ADJ = 500
_NO_MEMLOCK_LIMIT = "memlock=-1:-1"


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What the engine said of itself when it was opened."""

    knows_cdi_nvidia: bool = False
    has_nvidia_runtime: bool = False
    maps_users: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """What is decided outside the spec: the image's reference, the sandbox, and the engine's own mounts."""

    owner: Owner
    image: str
    sandbox_id: str
    own_mounts: tuple[Mount, ...] = ()


def container_body(spec: WorkloadSpec, placement: Placement, traits: EngineTraits) -> dict[str, Any]:
    is_vps = spec.session is not None
    command, *arguments = process_in_folder(spec)
    return {
        "Image": placement.image,
        "Entrypoint": [command],
        "Cmd": arguments,
        "Env": _environment(spec, traits),
        "WorkingDir": engines_folder(spec),
        "User": _user(spec),
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        # Its input ends with the first who is attached to it, so that nobody's death leaves it open for ever.
        **dict.fromkeys(("AttachStdin", "OpenStdin", "StdinOnce"), spec.has_input),
        "Tty": False,
        "Labels": workload_labels(
            placement.owner,
            spec.task_id,
            spec.attempt,
            TaskType.VPS if is_vps else TaskType.COMMAND,
            network_rights=has_network_rights(spec),
        ),
        "HostConfig": _host_config(spec, placement, traits),
    }


def _host_config(spec: WorkloadSpec, placement: Placement, traits: EngineTraits) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": f"container:{placement.sandbox_id}",
        "LogConfig": LOG_CONFIG,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        # The command is a child of an init, never process 1 itself: to that one the kernel delivers no signal
        # that it has no handler for, so a plain `sleep` could not be ended and `kill -9 $$` would do nothing.
        "Init": True,
        "Privileged": spec.body.privileged,
        "CapAdd": added_capabilities(spec),
        "CapDrop": dropped_capabilities(spec),
        # Those of the node's user are not for another.
        "GroupAdd": [] if spec.body.options.user else [str(group) for group in spec.user.groups],
        "OomKillDisable": False,
        "SecurityOpt": _security_options(spec),
        # Where the node itself runs out of memory, workloads go before the daemons that report it.
        "OomScoreAdj": OOM_SCORE_ADJ,
        "PidsLimit": spec.body.pids_limit or None,
        "Mounts": [bind_of(mount) for mount in (*spec.mounts, *placement.own_mounts)],
        "DeviceRequests": _device_requests(spec.gpus, traits),
        "Devices": [*_devices(spec.gpus), *_asked_devices(spec)],
        "Ulimits": [_ulimit(text) for text in _ulimits(spec, traits)],
    }
    if spec.body.options.shm_size_bytes:
        config["ShmSize"] = spec.body.options.shm_size_bytes
    if spec.body.options.ipc:
        config["IpcMode"] = spec.body.options.ipc
    if spec.cores:
        config["NanoCpus"] = round(spec.cores * 1_000_000_000)
    if spec.memory_bytes:
        config["Memory"] = config["MemorySwap"] = spec.memory_bytes
    if spec.binding is not None:
        config["CpusetCpus"] = _number_list(spec.binding.cpus)
        config["CpusetMems"] = _number_list(spec.binding.memory_nodes)
    return config


def _user(spec: WorkloadSpec) -> str:
    if spec.session is not None:
        return VPS_USER
    return spec.body.options.user or f"{spec.user.uid}:{spec.user.gid}"


def _asked_devices(spec: WorkloadSpec) -> list[dict[str, str]]:
    devices = map(parse_device, spec.body.options.devices)
    return [
        {"PathOnHost": d.source, "PathInContainer": d.destination, "CgroupPermissions": d.rights}
        for d in devices
    ]


def _ulimits(spec: WorkloadSpec, traits: EngineTraits) -> list[str]:
    """An engine that maps users cannot take the limit of locked memory away, as GPUs have it elsewhere."""
    is_kept = traits.maps_users and spec.gpus
    return [text for text in spec.body.options.ulimits if not (is_kept and text == _NO_MEMLOCK_LIMIT)]


def _ulimit(text: str) -> dict[str, Any]:
    limit = parse_ulimit(text)
    return {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}


def _security_options(spec: WorkloadSpec) -> list[str]:
    """Whoever is not root stays so, privileged or not: set-user-id files of an image would undo RUNNER_USER.

    VPSs and tasks of root keep such programs (sudo, ping), which give them nothing that they lack.
    """
    is_root = spec.session is not None or spec.user.uid == 0
    return [] if is_root else ["no-new-privileges"]


def _environment(spec: WorkloadSpec, traits: EngineTraits) -> list[str]:
    env = dict(spec.env)
    nvidia = [gpu for gpu in spec.gpus if gpu.vendor == "nvidia"]
    if traits.has_nvidia_runtime and not nvidia:
        # Images may ask for every card with this variable; a task sees those that it was given and no other.
        env["NVIDIA_VISIBLE_DEVICES"] = "void"
    elif nvidia:
        env.pop("NVIDIA_VISIBLE_DEVICES", None)
    return [f"{name}={value}" for name, value in env.items()]


def bind_of(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.destination,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _device_requests(gpus: Sequence[Gpu], traits: EngineTraits) -> list[dict[str, Any]]:
    uuids = [gpu.uuid for gpu in gpus if gpu.vendor == "nvidia"]
    if not uuids:
        return []
    if traits.knows_cdi_nvidia:
        return [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={uuid}" for uuid in uuids]}]
    return [{"Driver": "nvidia", "DeviceIDs": uuids, "Capabilities": [["gpu"]]}]


def _devices(gpus: Sequence[Gpu]) -> list[dict[str, str]]:
    if not any(gpu.vendor == "amd" for gpu in gpus):
        return []
    return [
        {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
        for path in ("/dev/kfd", "/dev/dri")
    ]


def _number_list(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
