"""Starting host and runner on this machine, step by step; each is awaited with a deadline and explained."""

import fcntl
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from kohakuriver.cli.console.progress import Progress, progress
from kohakuriver.cli.host_choice import host_of_this_machine
from kohakuriver.cli.local.daemons import Daemon
from kohakuriver.cli.local.engine import check_engine
from kohakuriver.cli.local.files import LocalCluster
from kohakuriver.client.connection.host_trust import HostAccess, KnownHost
from kohakuriver.client.connection.local_node import confirm_host, local_fingerprint, local_host_fingerprint
from kohakuriver.client.errors import HostUnreachable, NotAHost
from kohakuriver.client.host_client import HostClient
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import Conflict, KohakuRiverError, Unauthenticated, Unavailable

# A slow or busy machine takes long to load a program; one that ended is noticed at once all the same.
_START_SECONDS = 300.0
# A node that has this fault for so long will keep it.
_FAULT_SECONDS = 60.0
_ENVIRONMENT_SECONDS = 1500.0
_POLL_SECONDS = 0.1
_BAD_CONFIGURATION = 78
_BEFORE_TASKS = ("environments", "shared storage")
"""Parts of the host without which there is no environment to run a task in."""


class DaemonEnded(KohakuRiverError):
    """A daemon ended while `up` needed it; the sentence carries the end of its log."""

    code = "daemon_ended"

    def __init__(self, sentence: str, status: int | None) -> None:
        super().__init__(sentence)
        self.exit_status = status if status == _BAD_CONFIGURATION else 1


def daemons_of(base: Path) -> tuple[Daemon, Daemon]:
    """Host and runner, in the order in which they are started."""
    return (
        Daemon("host", base, base / "host_config.py"),
        Daemon("runner", base, base / "runner_config.py"),
    )


@contextmanager
def start_lock(base: Path) -> Iterator[None]:
    """Hold off any other `up` or `down` of this user."""
    with (base / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ClusterStart:
    """One call of `up`. `tell` prints a line about each step that is done."""

    def __init__(self, base: Path, cluster: LocalCluster, node: str, tell: Callable[[str], None]) -> None:
        self._base = base
        self._cluster = cluster
        self._node = node
        self._tell = tell
        self._host, self._runner = daemons_of(base)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._found = [daemon for daemon in (self._host, self._runner) if daemon.pid() is not None]
        self._node_fault = ""
        self.client = HostClient(HostAccess(cluster.url))

    def __enter__(self) -> "ClusterStart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        for process in self._processes.values():
            # The daemon is to outlive this process, which therefore never waits for it.
            process.returncode = process.poll() or 0

    def ensure_running(self) -> None:
        """Have host and runner run and know each other."""
        with start_lock(self._base):
            self._ensure_host()
            self._ensure_runner()

    def check_daemons(self) -> None:
        """Raise DaemonEnded if one of the two that `up` knows has ended, whatever the cluster still shows."""
        for daemon in (self._host, self._runner):
            process = self._processes.get(daemon.program)
            if process is not None and process.poll() is not None:
                how = f"ended with status {process.returncode}"
            elif process is None and daemon in self._found and daemon.pid() is None:
                how = "has ended"
            else:
                continue
            status = process.returncode if process is not None else None
            raise DaemonEnded(f"the {daemon.program} {how}; {_end_of_log(daemon)}", status)

    def wait_for_environment(self) -> None:
        """Wait until the default environment, which the host makes at its first start, can be used."""
        name = self._cluster.host.default_container_name
        if self._has_environment(name):
            return
        self._tell(f"The host makes the environment {name}; this first time it takes some minutes")
        with progress(f"Making the environment {name}"):

            def made() -> bool:
                faults = [item for item in self.client.readiness().value.faults if item.part in _BEFORE_TASKS]
                if faults:
                    raise Unavailable(f"there is no environment {name}: {faults[0].message}")
                return self._has_environment(name)

            self._wait(self._host, made, f"the environment {name}", _ENVIRONMENT_SECONDS)
        self._tell(f"The environment {name} is there")

    def _ensure_host(self) -> None:
        url = self._cluster.url
        if self._host.pid() is None and not _reached(self.client.is_alive):
            _check_port(
                self._cluster.host_address, self._cluster.host.host_port, "HOST_PORT", self._host.config
            )
            check_engine()
            self._start(self._host)
        elif self._host.pid() is None and not _reached(self._let_in):
            raise Unavailable(
                f"another KohakuRiver host, not of this user, answers at {url}; "
                f"end that one, or change HOST_PORT in {self._host.config}"
            )
        with progress("Waiting for the host"):
            self._wait(self._host, self._host_has_a_key, "a key of its own", _START_SECONDS)
            self._wait(self._host, self._is_alive, f"an answer at {url}/healthz", _START_SECONDS)
            self._wait(self._host, self._let_in, "the administrator's token", _START_SECONDS)
        self._tell(f"The host answers at {url}")

    def _ensure_runner(self) -> None:
        self._vouch_for_host()
        running = self._runner.pid() is not None
        if not running:
            runner = self._cluster.runner
            _check_port(runner.runner_bind_ip, runner.runner_port, "RUNNER_PORT", self._runner.config)
            self._start(self._runner)
        with progress("Waiting for the runner") as shown:
            self._wait(
                self._runner, lambda: self._node_is_in(shown), f"node {self._node} online", _START_SECONDS
            )
        self._tell(f"Node {self._node} is online")

    def _vouch_for_host(self) -> None:
        """Tell the runner which host it may obey; one that belongs to a host already looks at its pin."""
        if isinstance(trust := self.client.access.trust, KnownHost):
            confirm_host(self._node, trust.fingerprint)

    def _start(self, daemon: Daemon) -> None:
        self._processes[daemon.program] = daemon.start()
        self._tell(f"Started the {daemon.program}; its log is {daemon.log}")

    def _host_has_a_key(self) -> bool:
        """Tell whether it can be told from others; from then on nobody else is spoken to on its port."""
        fingerprint = local_host_fingerprint(Path(self._cluster.host.db_file))
        if fingerprint is not None:
            self._use(self.client.access.token, KnownHost(fingerprint, "the key file beside DB_FILE"))
        return fingerprint is not None

    def _use(self, token: str | None, trust: KnownHost) -> None:
        access = HostAccess(self._cluster.url, token, trust)
        if access != self.client.access:
            self.client.close()
            self.client = HostClient(access)

    def _is_alive(self) -> bool:
        return self.client.is_alive()

    def _let_in(self) -> bool:
        """Tell whether the API lets us in: auth is off, or the host has written the token and it is good."""
        if not self._host_has_a_key():
            return False
        trust = self.client.access.trust
        local = host_of_this_machine(self._cluster.host_address, self._cluster.host.host_port)
        if local is not None and isinstance(trust, KnownHost):
            self._use(local.token, trust)
        try:
            self.client.nodes.all()
        except Unauthenticated:
            return False
        return True

    def _node_is_in(self, shown: Progress) -> bool:
        """Tell whether our node takes work; a runner that waits is let in if its key is the one here.

        A node is online as soon as it registered, and before its runner has found out whether it can work.
        """
        records = [item for item in self.client.nodes.all().value if item.hostname == self._node]
        online = [item for item in records if item.status is NodeStatus.ONLINE]
        if online:
            self._node_fault = next((fault for item in online for fault in item.faults or ()), "")
            return not self._node_fault
        own = local_fingerprint(self._node)
        waiting = [item.fingerprint for item in records if item.status is NodeStatus.PENDING]
        if own in waiting:
            shown.step("Approving the runner of this machine")
            self.client.nodes.approve(self._node, own)
        elif own and waiting:
            raise Conflict(
                f"a runner that calls itself {self._node} waits for approval with the key {waiting[0]}, "
                f"but the one here has {own}; if that is right, `kohakuriver node approve {self._node}`"
            )
        return False

    def _has_environment(self, name: str) -> bool:
        return any(item.name == name for item in self.client.environments.tarballs().value)

    def _wait(self, daemon: Daemon, reached: Callable[[], bool], what: str, seconds: float) -> None:
        """Poll until it is reached; raises when either daemon ends before, or the time is over."""
        patience = Patience(seconds)
        while not _reached(reached):
            self.check_daemons()
            if patience.is_over(time.monotonic(), self._node_fault):
                fault = f" ({self._node_fault})" if self._node_fault else ""
                raise Unavailable(f"the {daemon.program} did not bring {what}{fault}; {_end_of_log(daemon)}")
            time.sleep(_POLL_SECONDS)
        self.check_daemons()


class Patience:
    """How long something is waited for: so many seconds, and not so long for a node that has a fault."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began: float | None = None
        self._faulty_since: float | None = None

    def is_over(self, now: float, fault: str) -> bool:
        """`now`: a steady clock's time in seconds; `fault`: the node's at this time, or empty."""
        began = self._began = now if self._began is None else self._began
        if not fault:
            self._faulty_since = None
        elif self._faulty_since is None:
            self._faulty_since = now
        is_stuck = self._faulty_since is not None and now - self._faulty_since > _FAULT_SECONDS
        return is_stuck or now - began > self._seconds


def _end_of_log(daemon: Daemon) -> str:
    return f"its log {daemon.log} ends so:\n{daemon.log_tail()}"


def _reached(condition: Callable[[], bool]) -> bool:
    """A host that does not answer has not reached anything; why is found by looking at its process."""
    try:
        return condition()
    except (HostUnreachable, NotAHost):
        return False


def _check_port(address: str, port: int, setting: str, config: Path) -> None:
    """Raise Conflict if another program has the port, saying which and how to take another one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise Conflict(
                f"port {port} of {address} cannot be used ({error.strerror}{_holder_of(port)}); "
                f"end that program, or set {setting} in {config} to another port"
            ) from error


def _holder_of(port: int) -> str:
    """Name the program that listens on a port, as far as this user may see it."""
    import psutil

    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            try:
                return f", by {psutil.Process(connection.pid).name()} with pid {connection.pid}"
            except psutil.NoSuchProcess:
                break
    return ""
