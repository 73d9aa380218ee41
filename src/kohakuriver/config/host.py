"""The settings of a host."""

import os
from dataclasses import dataclass

from kohakuriver.config import rules
from kohakuriver.config.settings import setting
from kohakuriver.models.enums import LogLevel
from kohakuriver.models.network.overlay import OverlaySubnet, parse_overlay_subnet
from kohakuriver.models.spec.mounts import Mount, parse_mount

_NETWORK = "Network"
_PATHS = "Paths and store"
_TIMING = "Timing"
_ENVIRONMENTS = "Environments"
_OVERLAY = "Overlay network"
_ACCOUNTS = "Accounts"
_QUEUE = "Queue"
_RETENTION = "Retention"
_LOGGING = "Logging"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Checked settings of a host. `HostConfig()` holds the defaults, unchecked."""

    host_bind_ip: str = setting("0.0.0.0", _NETWORK, "IP the host binds to", rules.IP_ADDRESS)  # noqa: S104
    host_port: int = setting(8000, _NETWORK, "Port of the API and the dashboard", rules.PORT)
    host_ssh_proxy_port: int = setting(8002, _NETWORK, "Port of the SSH gateway", rules.PORT)
    ssh_proxy_v1: bool = setting(
        False,
        _NETWORK,
        "Let SSH of 1.0's command line through to VPSs that ask for a key, without a login",
        rules.ANY_BOOL,
    )
    host_reachable_address: str = setting(
        "127.0.0.1", _NETWORK, "Address at which runners and users reach the host", rules.HOST_OR_IP
    )

    shared_dir: str = setting("/mnt/cluster-share", _PATHS, "Shared storage path", rules.ABSOLUTE_MOUNTABLE)
    db_file: str = setting(
        "/var/lib/kohakuriver/kohakuriver.db",
        _PATHS,
        "SQLite database (must be writable where DB_URL is empty)",
        rules.ABSOLUTE,
    )
    db_url: str = setting(
        "",
        _PATHS,
        'PostgreSQL database shared by several hosts ("": SQLite at DB_FILE)',
        rules.DATABASE_URL_OR_EMPTY,
        secret=True,
    )
    container_dir: str = setting(
        "", _PATHS, 'Tarball directory ("": SHARED_DIR/kohakuriver-containers)', rules.ABSOLUTE_OR_EMPTY
    )
    host_log_file: str = setting("", _PATHS, 'Log file path ("": console only)', rules.WRITABLE_FILE_OR_EMPTY)

    heartbeat_interval_seconds: int = setting(
        5, _TIMING, "Time between heartbeats of a runner that announced none", rules.SECONDS
    )
    heartbeat_timeout_factor: int = setting(
        6, _TIMING, "Missed heartbeats after which a node is offline", rules.whole(2, 10_000)
    )
    cleanup_check_interval_seconds: int = setting(
        10, _TIMING, "Time between looks for silent nodes and expired things", rules.SECONDS
    )

    default_container_name: str = setting(
        "kohakuriver-base", _ENVIRONMENTS, "Environment of a task that names none", rules.ENVIRONMENT
    )
    initial_base_image: str = setting(
        "python:3.12-alpine", _ENVIRONMENTS, "Image that the first environment is made from", rules.IMAGE
    )
    tasks_privileged: bool = setting(
        False, _ENVIRONMENTS, "Run environment containers of the host with --privileged", rules.ANY_BOOL
    )
    additional_mounts: tuple[str, ...] = setting(
        (), _ENVIRONMENTS, "Extra mounts in environment containers of the host", rules.MOUNTS
    )
    default_working_dir: str = setting(
        "/shared", _ENVIRONMENTS, "Default working directory inside containers", rules.ABSOLUTE
    )
    env_container_cpu_limit: float = setting(
        0.25, _ENVIRONMENTS, "Share of the host's cores for one environment container", rules.FRACTION
    )
    env_container_mem_limit: float = setting(
        0.25, _ENVIRONMENTS, "Share of the host's memory for one environment container", rules.FRACTION
    )

    overlay_enabled: bool = setting(False, _OVERLAY, "Run the VXLAN overlay", rules.ANY_BOOL)
    overlay_subnet: str = setting("10.128.0.0/12/6/14", _OVERLAY, "Address plan", rules.OVERLAY_SUBNET)
    overlay_vxlan_id: int = setting(100, _OVERLAY, "Base VXLAN id", rules.VXLAN_ID)
    overlay_vxlan_port: int = setting(4789, _OVERLAY, "VXLAN UDP port", rules.PORT)
    overlay_mtu: int = setting(1450, _OVERLAY, "Overlay MTU", rules.MTU)

    auth_enabled: bool = setting(True, _ACCOUNTS, "Ask every user for a credential", rules.ANY_BOOL)
    admin_secret: str = setting(
        "",
        _ACCOUNTS,
        'Secret that acts as an administrator ("": none)',
        rules.SECRET_OR_EMPTY,
        secret=True,
    )
    admin_register_secret: str = setting(
        "",
        _ACCOUNTS,
        'Secret with which the first administrator registers ("": none)',
        rules.SECRET_OR_EMPTY,
        secret=True,
    )
    session_expire_hours: int = setting(720, _ACCOUNTS, "Life of a login", rules.HOURS)
    invitation_expire_hours: int = setting(24, _ACCOUNTS, "Life of an invitation", rules.HOURS)

    max_waiting_tasks_per_user: int = setting(
        10_000, _QUEUE, "Tasks that one user may have waiting (operators: 20 times so many)", rules.whole(1)
    )
    max_waiting_mib_per_user: int = setting(
        64,
        _QUEUE,
        "MiB that a user's waiting tasks may take (operators: 20 times so many)",
        rules.whole(1),
    )

    keep_output_days: int = setting(
        180, _RETENTION, "Days that output of ended tasks is kept (0: as long as their records)", rules.DAYS
    )
    keep_tasks_days: int = setting(
        365, _RETENTION, "Days that records of ended tasks are kept (0: for ever)", rules.DAYS
    )
    keep_events_days: int = setting(
        90,
        _RETENTION,
        "Days that histories of ended tasks are kept (0: as long as their records)",
        rules.DAYS,
    )

    keep_snapshots_days: int = setting(
        30,
        _RETENTION,
        "Days that snapshots of killed VPSs are kept (0: as long as their records)",
        rules.DAYS,
    )
    keep_images_days: int = setting(
        30, _RETENTION, "Days that nodes keep images that nothing uses (0: for ever)", rules.DAYS
    )
    keep_local_temp_days: int = setting(
        90, _RETENTION, "Days that what nobody touches in /local_temp is kept (0: for ever)", rules.DAYS
    )

    log_level: LogLevel = setting(LogLevel.INFO, _LOGGING, "Logging verbosity", rules.ANY_LOG_LEVEL)  # noqa: RUF009

    @property
    def tarball_dir(self) -> str:
        """Where environment tarballs are kept."""
        return self.container_dir or os.path.join(self.shared_dir, "kohakuriver-containers")

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """ADDITIONAL_MOUNTS, read."""
        return tuple(parse_mount(text) for text in self.additional_mounts)

    @property
    def overlay(self) -> OverlaySubnet:
        """OVERLAY_SUBNET, read."""
        return parse_overlay_subnet(self.overlay_subnet)
