"""The configuration files of a cluster on one machine: local folders, nothing reachable from outside."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kohakuriver.config import HostConfig, Program, RunnerConfig

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """The checked settings of both programs, and the files that were written because they were missing.

    `notes`: sentences about what is written there and is not the default.
    """

    host: "HostConfig"
    runner: "RunnerConfig"
    written: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def host_address(self) -> str:
        """Where the host of this machine is reached from this machine."""
        everywhere = self.host.host_bind_ip in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        return _LOOPBACK if everywhere else self.host.host_bind_ip

    @property
    def url(self) -> str:
        host = f"[{self.host_address}]" if ":" in self.host_address else self.host_address
        return f"http://{host}:{self.host.host_port}"


def ensure_local_files(base: Path) -> LocalCluster:
    """Write the two files where they are missing, and load both; raises ConfigFaults with every fault.

    A runner's new file follows the host's existing one in what both must agree on, and has a subnet that is
    free on this machine.
    """
    from kohakuriver.cli.local.workload_subnet import choose_network
    from kohakuriver.config import HOST, RUNNER, load_host_config, load_runner_config

    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    host_file, runner_file = base / HOST.file_name, base / RUNNER.file_name
    written = []
    host_values: dict[str, object] = {
        "HOST_BIND_IP": _LOOPBACK,
        "SHARED_DIR": str(base / "shared"),
        "DB_FILE": str(base / "host" / "kohakuriver.db"),
    }
    if _write_if_missing(HOST, host_file, host_values):
        written.append(host_file)
        (base / "shared").mkdir(mode=0o755, exist_ok=True)
        (base / "host").mkdir(mode=0o700, exist_ok=True)
    host = load_host_config(host_file)
    if Path(host.db_file).parent == base / "host":
        _close_to_others(Path(host.db_file))
    runner_values: dict[str, object] = {
        "RUNNER_BIND_IP": _LOOPBACK,
        "HOST_PORT": host.host_port,
        "SHARED_DIR": host.shared_dir,
        "CONTAINER_TAR_DIR": host.container_dir,
        "LOCAL_TEMP_DIR": str(base / "local-temp"),
        "VM_IMAGES_DIR": str(base / "vm-images"),
        "VM_INSTANCES_DIR": str(base / "vm-instances"),
    }
    notes = []
    if not runner_file.exists():
        network = choose_network(RUNNER)
        runner_values |= network.settings
        notes = [f"{note}; {runner_file} says so" for note in network.notes]
    if _write_if_missing(RUNNER, runner_file, runner_values):
        written.append(runner_file)
        (base / "local-temp").mkdir(mode=0o755, exist_ok=True)
    return LocalCluster(host, load_runner_config(runner_file), tuple(written), tuple(notes))


def _close_to_others(db_file: Path) -> None:
    """Close a database that `up` made itself, should an earlier version have left it open; the host refuses
    such a one, and of any other database it is for its owner to look who may have read it."""
    for path in db_file.parent.glob(f"{db_file.name}*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)


def _write_if_missing(program: "Program[Any]", path: Path, values: dict[str, object]) -> bool:
    from kohakuriver.config import render_template, write_config_file

    if path.exists():
        return False
    write_config_file(path, render_template(program, values))
    return True
