"""From the body of a creation to the specification of a VPS, with the keys that are made for it."""

from dataclasses import dataclass, field

from kohakuriver.host.api.http.bodies import CreateVpsBody
from kohakuriver.host.api.http.container_fields import options_of
from kohakuriver.host.api.tasks.submission import environment_of, mounts_of
from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.enums import SshKeyMode, TaskType, VpsBackend
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.names import check_environment_name, check_image_reference, check_vps_name
from kohakuriver.models.spec.amounts import check_cores, check_memory
from kohakuriver.models.spec.capabilities import check_capabilities
from kohakuriver.models.spec.image_references import check_pull
from kohakuriver.models.spec.size import check_spec_size
from kohakuriver.models.spec.ssh_keys import MAX_KEYS, check_public_key
from kohakuriver.models.spec.targets import Target, is_hostname
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.models.vps import VpsSpec


@dataclass(frozen=True, slots=True)
class WantedVps:
    """What is to be created; the private key is only for the answer."""

    spec: TaskSpec
    public_key: str | None = None
    private_key: str | None = field(default=None, repr=False)


def vps_spec_of(body: CreateVpsBody) -> WantedVps:
    """Check everything that can be checked without looking at the cluster."""
    _check_kind(body)
    mode = _mode(body)
    uploaded = _uploaded(body, mode)
    made = new_key_pair(body.name or "kohakuriver") if mode is SshKeyMode.GENERATE else None
    own = new_key_pair("kohakuriver-session") if mode is not SshKeyMode.DISABLED else None
    vps = VpsSpec(
        ssh_key_mode=mode,
        authorized_keys=(made.public,) if made else uploaded,
        host_key=own.private if own else "",
        host_public_key=own.public if own else "",
    )
    spec = TaskSpec(
        command="",
        env_vars=environment_of(body.env_vars or {}),
        required_cores=1 if body.required_cores is None else check_cores(body.required_cores),
        required_memory_bytes=check_memory(body.required_memory_bytes or 0),
        required_gpus=tuple(sorted(set(body.required_gpus or ()))),
        target=_target(body),
        container_name=None if body.container_name is None else check_environment_name(body.container_name),
        registry_image=None if body.registry_image is None else check_image_reference(body.registry_image),
        pull=check_pull(body.pull, body.registry_image),
        privileged=bool(body.privileged),
        capabilities=check_capabilities(body.capabilities or ()),
        options=options_of(body),
        additional_mounts=mounts_of(body.additional_mounts or []),
        name=None if body.name is None else check_vps_name(body.name),
        task_type=TaskType.VPS,
        vps=vps,
    )
    check_spec_size(spec)
    return WantedVps(spec, made.public if made else None, made.private if made else None)


def _check_kind(body: CreateVpsBody) -> None:
    if body.vps_backend is VpsBackend.QEMU or body.vm_image or body.vm_disk_size or body.memory_mb:
        raise InvalidInput(
            "this version runs VPSs only in Docker; leave vps_backend, vm_image, vm_disk_size and "
            "memory_mb out",
            "vps_backend",
        )
    if body.container_name is not None and body.registry_image is not None:
        raise InvalidInput("give container_name or registry_image, not both", "registry_image")
    if body.ip_reservation_token:
        raise InvalidInput(
            "there are no IP reservations on this cluster: the overlay network is off", "ip_reservation_token"
        )


def _mode(body: CreateVpsBody) -> SshKeyMode:
    if body.ssh_key_mode is not None:
        return body.ssh_key_mode
    return SshKeyMode.UPLOAD if body.ssh_public_key or body.ssh_public_keys else SshKeyMode.DISABLED


def _uploaded(body: CreateVpsBody, mode: SshKeyMode) -> tuple[str, ...]:
    """The public keys that were given, each once."""
    keys = {} if body.ssh_public_key is None else {check_public_key(body.ssh_public_key): None}
    for index, text in enumerate(body.ssh_public_keys or ()):
        keys[check_public_key(text, f"ssh_public_keys.{index}")] = None
    if mode is SshKeyMode.UPLOAD and not keys:
        raise InvalidInput("the SSH mode upload needs a public key", "ssh_public_key")
    if keys and mode is not SshKeyMode.UPLOAD:
        raise InvalidInput(
            f"the SSH mode {mode.value} takes no public key; use the mode upload", "ssh_public_key"
        )
    if len(keys) > MAX_KEYS:
        raise InvalidInput(f"a VPS takes {MAX_KEYS} public keys at most", "ssh_public_keys")
    return tuple(keys)


def _target(body: CreateVpsBody) -> Target | None:
    gpus = tuple(body.required_gpus or ())
    if len(set(gpus)) != len(gpus):
        raise InvalidInput("required_gpus names a GPU twice", "required_gpus")
    if body.target_hostname is None:
        if gpus or body.target_numa_node_id is not None:
            raise InvalidInput(
                "GPUs and NUMA nodes are asked for by number, so name the node too", "target_hostname"
            )
        return None
    if not is_hostname(body.target_hostname):
        raise InvalidInput(f"{body.target_hostname[:80]!r} is not a node's name", "target_hostname")
    return Target(body.target_hostname, body.target_numa_node_id, tuple(sorted(gpus)))
