"""One node of the lab: a machine of its own as far as namespaces go, with an engine, a runner and folders."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from support.cluster.cluster import BIN, Daemon, wait_for, write_config
from support.engines.private_docker import DaemonPlace, DockerDaemon
from support.lab import relay
from support.lab.clock import MovableClock
from support.lab.disk import mount_disk
from support.lab.network import Direction, close_port, drop, drop_nothing
from support.lab.relay import Disturbance
from support.machine.namespaces import Namespaces

NETWORK = "kohakuriver-net"
SANDBOXES_KEPT = 2
_STATE_MIB = 32
_RUNNER_PORT = 8001
_RELAY_PORT = 8000
_TESTS = Path(__file__).parents[2]


@dataclass(frozen=True)
class NodePlace:
    """`folder` holds what lasts, `scratch` sockets and the engine's data.

    `mark` is put into the environment of each process. `prefix` begins the name of the engine's cgroup.
    `host`: address and port where the host listens.
    """

    name: str
    address: str
    host: tuple[str, int]
    folder: Path
    scratch: Path
    mark: dict[str, str]
    prefix: str
    disk_source: str


class LabNode:
    """Made with its namespaces, disk and clock; its link and the runner's settings come afterwards."""

    def __init__(self, place: NodePlace) -> None:
        self.name = place.name
        self.home = place.folder / "home"
        self.local_temp = place.folder / "temp"
        self.address = place.address
        self._place = place
        self._disturbance = Disturbance()
        self._control = place.folder / "relay.json"
        for folder in (self.home, self.local_temp):
            folder.mkdir(parents=True)
        self.clock = MovableClock(place.folder / "clock")
        # Before the namespaces: they see what is mounted when they are made.
        self.disk = mount_disk(self.home / ".kohakuriver", _STATE_MIB, place.disk_source)
        self.namespaces = Namespaces.make(place.name, place.mark)
        self.docker = DockerDaemon(
            DaemonPlace(
                self.namespaces,
                place.prefix + place.name,
                place.scratch / place.name,
                place.scratch / f"{place.name}.sock",
                ("--live-restore",),
                place.mark,
            )
        )
        self.relay = self._daemon("relay", self._relay_argv(), {"PYTHONPATH": str(_TESTS)})
        self.runner = self._daemon(
            "runner",
            [str(BIN / "kohakuriver.runner"), "--config", str(self._config)],
            {"DOCKER_HOST": self.docker.url, **self.clock.environment},
        )

    def processes(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Those that were started last in each place."""
        yield self.namespaces.holder
        started = (self.docker.process, self.relay.process, self.runner.process)
        yield from (process for process in started if process is not None)

    @property
    def state_dir(self) -> Path:
        """The runner's."""
        return self.home / ".kohakuriver" / "runner" / self.name

    def write_settings(self, **settings: object) -> None:
        """Write the runner's configuration; these win over the lab's."""
        write_config(self._config, {**self._settings(), **settings})

    @property
    def _config(self) -> Path:
        return self._place.folder / "runner_config.py"

    def _relay_argv(self) -> list[str]:
        """Both ways between host and runner lead through it: neither knows of the other's true port."""
        host_address, host_port = self._place.host
        ways = [
            f"127.0.0.1:{_RELAY_PORT}={host_address}:{host_port}",
            f"{self.address}:{_RUNNER_PORT}=127.0.0.1:{_RUNNER_PORT}",
        ]
        return [sys.executable, "-m", relay.__name__, "--control", str(self._control), *ways]

    def _daemon(self, name: str, argv: list[str], environment: dict[str, str]) -> Daemon:
        return Daemon(name, self.home, self.namespaces.argv(*argv), {**self._place.mark, **environment})

    def _settings(self) -> dict[str, object]:
        folder = self._place.folder
        return {
            "RUNNER_BIND_IP": "127.0.0.1",
            "RUNNER_PORT": _RUNNER_PORT,
            "HOST_ADDRESS": "127.0.0.1",
            "HOST_PORT": _RELAY_PORT,
            "LOCAL_TEMP_DIR": str(self.local_temp),
            "HEARTBEAT_INTERVAL_SECONDS": 1,
            "DOCKER_NETWORK_NAME": NETWORK,
            "DOCKER_NETWORK_SUBNET": "172.30.0.0/16",
            "DOCKER_NETWORK_GATEWAY": "172.30.0.1",
            "SANDBOX_POOL_SIZE": SANDBOXES_KEPT,
            "VM_IMAGES_DIR": str(folder / "vm-images"),
            "VM_INSTANCES_DIR": str(folder / "vm-instances"),
        }

    def start_relay(self) -> None:
        if self.relay.is_running():
            return
        self.relay.start()
        wait_for(lambda: "relay ready" in self.relay.tail(), f"the relay of {self.name}", 30)

    def drop(self, direction: Direction, percent: float = 100) -> None:
        drop(self.namespaces, direction, percent)

    def close_port(self, port: int = _RUNNER_PORT, *, refuse: bool = False) -> None:
        """Let nothing come in there; connections that stand are cut, too."""
        close_port(self.namespaces, port, refuse=refuse)

    def disturb(self, **amounts: int) -> None:
        """Have messages treated so from now on (see `Disturbance`), beside what was set before."""
        self._disturbance = replace(self._disturbance, **amounts)
        self._disturbance.write(self._control)

    def counts(self) -> dict[str, int]:
        """What the relay has done so far, by the names in `relay.Counts`; a moment old."""
        path = Path(f"{self._control}.counts")
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def mend(self) -> None:
        """Let everything pass again, packets and messages."""
        drop_nothing(self.namespaces)
        self._disturbance = Disturbance()
        self._disturbance.write(self._control)
