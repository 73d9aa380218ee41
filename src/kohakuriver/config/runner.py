"""The settings of a runner: those of its configuration document, then ours."""

import os
from dataclasses import dataclass

from kohakuriver.config import rules
from kohakuriver.config.addresses import parse_host_address
from kohakuriver.config.settings import setting
from kohakuriver.models.enums import LogLevel
from kohakuriver.models.network.overlay import OverlaySubnet, parse_overlay_subnet
from kohakuriver.models.spec.mounts import Mount, parse_mount

_NETWORK = "Network"
_PATHS = "Paths"
_TIMING = "Timing"
_EXECUTION = "Execution"
_DOCKER = "Docker"
_DOCKER_NETWORK = "Docker network"
_TUNNEL = "Tunnel"
_SNAPSHOTS = "Snapshots"
_VM = "VM (QEMU/KVM)"
_OVERLAY = "Overlay network"
_LOGGING = "Logging"
_SANDBOXES = "Sandboxes and enrolment"
_LIMITS = "Images and limits of tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """Checked settings of a runner. `RunnerConfig()` holds the defaults, unchecked."""

    runner_bind_ip: str = setting("0.0.0.0", _NETWORK, "IP the runner binds to", rules.IP_ADDRESS)  # noqa: S104
    runner_port: int = setting(8001, _NETWORK, "Runner API port", rules.PORT)
    host_address: str = setting(
        "127.0.0.1", _NETWORK, "Host server address (how the runner reaches the host)", rules.HOST_OR_URL
    )
    host_port: int = setting(8000, _NETWORK, "Host server port", rules.PORT)

    shared_dir: str = setting(
        "/mnt/cluster-share", _PATHS, "Shared storage path (must match the host's)", rules.ABSOLUTE_MOUNTABLE
    )
    local_temp_dir: str = setting(
        "/tmp/kohakuriver",  # noqa: S108
        _PATHS,
        "Local fast temporary storage",
        rules.WRITABLE_DIRECTORY,
    )
    container_tar_dir: str = setting(
        "", _PATHS, 'Tarball directory ("": SHARED_DIR/kohakuriver-containers)', rules.ABSOLUTE_OR_EMPTY
    )
    numactl_path: str = setting("", _PATHS, 'Path to numactl ("": found on PATH)', rules.EXECUTABLE_OR_EMPTY)
    runner_log_file: str = setting(
        "", _PATHS, 'Log file path ("": console only)', rules.WRITABLE_FILE_OR_EMPTY
    )

    heartbeat_interval_seconds: int = setting(
        5, _TIMING, "Time between heartbeats to the host", rules.SECONDS
    )
    resource_check_interval_seconds: int = setting(
        1, _TIMING, "Time between samples of the machine's resources", rules.SECONDS
    )

    runner_user: str = setting(
        "", _EXECUTION, 'User that command tasks run as ("": the runner\'s own)', rules.USER_OR_EMPTY
    )
    default_working_dir: str = setting(
        "/shared", _EXECUTION, "Default working directory inside containers", rules.ABSOLUTE
    )

    tasks_privileged: bool = setting(
        False, _DOCKER, "Run all containers of this node with --privileged", rules.ANY_BOOL
    )
    additional_mounts: tuple[str, ...] = setting(
        (), _DOCKER, 'Extra mounts in every container ("host_path:container_path[:ro]")', rules.MOUNTS
    )
    docker_image_sync_timeout: int = setting(
        600, _DOCKER, "Seconds that loading or pulling an image may take", rules.SECONDS
    )

    docker_network_name: str = setting(
        "kohakuriver-net", _DOCKER_NETWORK, "Docker bridge network for containers", rules.DOCKER_NETWORK
    )
    docker_network_subnet: str = setting(
        "172.30.0.0/16", _DOCKER_NETWORK, "Subnet of the bridge network", rules.DOCKER_SUBNET
    )
    docker_network_gateway: str = setting(
        "172.30.0.1",
        _DOCKER_NETWORK,
        "Gateway of the bridge network (workloads reach the runner here)",
        rules.IPV4_ADDRESS,
    )

    tunnel_enabled: bool = setting(True, _TUNNEL, "Run the tunnel client beside containers", rules.ANY_BOOL)
    tunnel_client_path: str = setting(
        "", _TUNNEL, 'Path to the tunnel client ("": found by itself)', rules.EXECUTABLE_OR_EMPTY
    )

    auto_snapshot_on_stop: bool = setting(
        True, _SNAPSHOTS, "Make a snapshot when a VPS is stopped", rules.ANY_BOOL
    )
    max_snapshots_per_vps: int = setting(
        3, _SNAPSHOTS, "Snapshots kept per VPS (oldest pruned; 0 keeps none)", rules.whole(0)
    )
    auto_restore_on_create: bool = setting(
        True, _SNAPSHOTS, "Start a VPS again from its newest snapshot", rules.ANY_BOOL
    )

    vm_images_dir: str = setting(
        "/var/lib/kohakuriver/vm-images", _VM, "Directory of base VM images", rules.ABSOLUTE
    )
    vm_instances_dir: str = setting(
        "/var/lib/kohakuriver/vm-instances", _VM, "Directory of VM instances", rules.ABSOLUTE
    )
    vm_default_memory_mb: int = setting(4096, _VM, "Memory of a VM that names none, in MiB", rules.whole(128))
    vm_default_disk_size: str = setting(
        "500G", _VM, "Disk of a VM that names none (thin-provisioned)", rules.DISK_SIZE
    )
    vm_acs_override: bool = setting(True, _VM, "Disable ACS on PCI bridges at start", rules.ANY_BOOL)
    vm_boot_timeout_seconds: int = setting(600, _VM, "VM boot timeout", rules.SECONDS)
    vm_ssh_ready_timeout_seconds: int = setting(600, _VM, "VM SSH readiness timeout", rules.SECONDS)
    vm_heartbeat_timeout_seconds: int = setting(120, _VM, "VM agent heartbeat timeout", rules.SECONDS)
    vm_bridge_name: str = setting(
        "kohaku-br0", _VM, "NAT bridge for VMs (where the overlay is off)", rules.BRIDGE_NAME
    )
    vm_bridge_subnet: str = setting("10.200.0.0/24", _VM, "Subnet of the NAT bridge", rules.VM_SUBNET)
    vm_bridge_gateway: str = setting("10.200.0.1", _VM, "Gateway of the NAT bridge", rules.IPV4_ADDRESS)

    overlay_enabled: bool = setting(
        False, _OVERLAY, "Join the VXLAN overlay (must match the host's)", rules.ANY_BOOL
    )
    overlay_subnet: str = setting(
        "10.128.0.0/12/6/14", _OVERLAY, "Address plan (must match the host's)", rules.OVERLAY_SUBNET
    )
    overlay_network_name: str = setting(
        "kohakuriver-overlay", _OVERLAY, "Docker network on the overlay bridge", rules.DOCKER_NETWORK
    )
    overlay_vxlan_id: int = setting(100, _OVERLAY, "Base VXLAN id (must match the host's)", rules.VXLAN_ID)
    overlay_vxlan_port: int = setting(4789, _OVERLAY, "VXLAN UDP port (must match the host's)", rules.PORT)
    overlay_mtu: int = setting(1450, _OVERLAY, "Overlay MTU (must match the host's)", rules.MTU)

    log_level: LogLevel = setting(LogLevel.INFO, _LOGGING, "Logging verbosity", rules.ANY_LOG_LEVEL)  # noqa: RUF009

    sandbox_pool_size: int = setting(
        2, _SANDBOXES, "Sandboxes kept ready (0: each is made on demand)", rules.whole(0, 256)
    )
    workload_egress_deny: tuple[str, ...] = setting(
        ("metadata", "control"),
        _SANDBOXES,
        'Where workloads may not connect to ("metadata", "control", or address[/bits][:port])',
        rules.EGRESS_PLACES,
    )
    join_token: str = setting(
        "",
        _SANDBOXES,
        'Token from the host that enrols this runner ("": wait for approval)',
        rules.JOIN_TOKEN_OR_EMPTY,
        secret=True,
    )
    host_fingerprint: str = setting(
        "",
        _SANDBOXES,
        'Fingerprint of the host\'s key ("": from JOIN_TOKEN, or confirmed with `kohakuriver runner trust`)',
        rules.FINGERPRINT_OR_EMPTY,
    )

    local_images: tuple[str, ...] = setting(
        (), _LIMITS, "Images that tasks may name and that are used as they are here, unpulled", rules.IMAGES
    )
    task_pids_limit: int = setting(
        4096,
        _LIMITS,
        "Processes and threads that a task or VPS may have (0: no limit)",
        rules.whole(0, 1 << 22),
    )
    default_memory_limit: float = setting(
        0.9,
        _LIMITS,
        "Memory limit of a task or VPS that asks for none, as a share of the node's (0: no limit)",
        rules.FRACTION_OR_ZERO,
    )

    @property
    def host_url(self) -> str:
        """Where the host's API is; a port in HOST_ADDRESS wins over HOST_PORT."""
        return parse_host_address(self.host_address).url(self.host_port)

    @property
    def host_place(self) -> tuple[str, int]:
        """The host's name or address, and the port of its API."""
        host = parse_host_address(self.host_address)
        return host.host, host.port or self.host_port

    @property
    def tarball_dir(self) -> str:
        """Where environment tarballs are looked for."""
        return self.container_tar_dir or os.path.join(self.shared_dir, "kohakuriver-containers")

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """ADDITIONAL_MOUNTS, read."""
        return tuple(parse_mount(text) for text in self.additional_mounts)

    @property
    def overlay(self) -> OverlaySubnet:
        """OVERLAY_SUBNET, read."""
        return parse_overlay_subnet(self.overlay_subnet)
