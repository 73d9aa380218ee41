"""A real cluster on this machine for tests: host and runners as processes, each with its own home folder.

Everything that is started here ends with `Cluster.stop`, also after a failure: processes by pid, containers
and the network by label. Several runners share the machine's Docker engine; each has its own host name (in a
UTS namespace of its own), network and folders.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedBinds
from support.static_images import busybox_tree

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """Return the first true answer of `condition`; fails with `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


@dataclass
class Daemon:
    """One started program with its home folder and log."""

    name: str
    home: Path
    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home / f"{self.name}.log"

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self.home), **self.environment},
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, with_signal: int = signal.SIGTERM, seconds: float = 20) -> int | None:
        """Signal the process and wait; SIGKILL when it does not follow."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


class Cluster:
    """Folders under `root`; `start_host` first, then any number of `start_runner`."""

    _numbers = itertools.count()

    def __init__(self, root: Path, address: str = "127.0.0.1", programs: Path = BIN) -> None:
        """`programs`: the folder of the daemons' programs."""
        self.root = root
        self.programs = programs
        self.address = address
        self.port = free_port()
        self.url = f"http://{address}:{self.port}"
        self.shared = root / "shared"
        self.containers = self.shared / "kohakuriver-containers"
        self.host_settings: dict[str, object] = {}
        self.host_environment: dict[str, str] = {}
        self.host: Daemon | None = None
        self.runners: dict[str, Daemon] = {}
        self.networks: list[str] = []
        self._client: httpx2.Client | None = None

    @property
    def host_home(self) -> Path:
        return self.root / "host-home"

    @property
    def database(self) -> Path:
        """The host's SQLite file."""
        return self.root / "state" / "kohakuriver.db"

    def start_host(self, **settings: object) -> Daemon:
        """Write the configuration (once) and start the host; returns when it is healthy."""
        config = self.root / "host_config.py"
        write_busybox_tarball(self.containers, "kohakuriver-base")
        self.host_settings = {
            "HOST_BIND_IP": self.address,
            "HOST_PORT": self.port,
            "HOST_SSH_PROXY_PORT": free_port(),
            "SHARED_DIR": str(self.shared),
            "DB_FILE": str(self.database),
            "CLEANUP_CHECK_INTERVAL_SECONDS": 1,
            "HEARTBEAT_INTERVAL_SECONDS": 1,
            **self.host_settings,
            **settings,
        }
        write_config(config, self.host_settings)
        argv = [str(self.programs / "kohakuriver.host"), "--config", str(config)]
        self.host = Daemon("host", self.host_home, argv, self.host_environment)
        self.host.start()
        self.await_health()
        return self.host

    def await_health(self) -> None:
        host = self.host

        def healthy() -> bool:
            if host is not None and host.process is not None and host.process.poll() is not None:
                raise AssertionError(f"the host ended with {host.process.returncode}:\n{host.tail()}")
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(self.url + "/healthz", trust_env=False).status_code == 200
            return False

        wait_for(healthy, "the host to be healthy")

    def runner_config(self, name: str, **settings: object) -> Path:
        """Write a runner's configuration file and return its path."""
        number = len(self.networks)
        network = f"kr-test-{os.getpid()}-{self.port}-{number}"
        self.networks.append(network)
        subnet = self.free_subnet()
        path = self.root / f"{name}.py"
        write_config(
            path,
            {
                "RUNNER_BIND_IP": "127.0.0.1",
                "RUNNER_PORT": free_port(),
                "HOST_ADDRESS": "127.0.0.1",
                "HOST_PORT": self.port,
                "SHARED_DIR": str(self.shared),
                "LOCAL_TEMP_DIR": str(self.root / f"{name}-temp"),
                "HEARTBEAT_INTERVAL_SECONDS": 1,
                "DOCKER_NETWORK_NAME": network,
                "DOCKER_NETWORK_SUBNET": f"{subnet}.0/24",
                "DOCKER_NETWORK_GATEWAY": f"{subnet}.1",
                "VM_IMAGES_DIR": str(self.root / f"{name}-vm-images"),
                "VM_INSTANCES_DIR": str(self.root / f"{name}-vm-instances"),
                **settings,
            },
        )
        return path

    def free_subnet(self) -> str:
        """The first three numbers of a network that nothing has: workers of one run never meet, and what
        another run has shows as a route.
        """
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        routes = subprocess.run(["ip", "-4", "route"], capture_output=True, check=True).stdout.decode()
        for number in itertools.islice(Cluster._numbers, 250):
            subnet = f"10.{201 + worker % 29}.{number % 250}"
            if f"{subnet}." not in routes:
                return subnet
        raise AssertionError("no subnet is free for another test's network")

    def add_runner(
        self, name: str, *, join: bool = True, environment: dict[str, str] | None = None, **settings: object
    ) -> Daemon:
        """Start a runner on a node called `name`; returns when the node is online (with `join`)."""
        if join:
            settings.setdefault("JOIN_TOKEN", self.join_token())
        config = self.runner_config(name, **settings)
        argv = in_uts_namespace(name, config, self.programs)
        daemon = Daemon(name, self.root / f"{name}-home", argv, environment or {})
        self.runners[name] = daemon
        daemon.start()
        if join:
            self.await_node(name)
        return daemon

    def await_node(self, name: str, status: str = "online", seconds: float = 90) -> dict[str, Any]:
        daemon = self.runners.get(name)

        def there() -> dict[str, Any] | None:
            if daemon is not None and daemon.process is not None and status == "online":
                code = daemon.process.poll()
                assert code is None, f"runner {name} ended with {code}:\n{daemon.tail()}"
            listed = self.api("GET", "/api/nodes")
            return next((n for n in listed if n["hostname"] == name and n["status"] == status), None)

        try:
            return dict(wait_for(there, f"node {name} to be {status}", seconds))
        except AssertionError as error:
            tail = daemon.tail() if daemon else ""
            raise AssertionError(f"{error}\n{tail}") from error

    @property
    def token(self) -> str:
        return self._left_by_host("token")

    @property
    def fingerprint(self) -> str:
        """Of the host's key."""
        return self._left_by_host("fingerprint")

    def _left_by_host(self, name: str) -> str:
        return str(
            json.loads((self.host_home / ".kohakuriver" / "admin_token.json").read_text()).get(name, "")
        )

    @property
    def client(self) -> httpx2.Client:
        """HTTP client with the administrator's token."""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)
        return self._client

    def api(self, method: str, path: str, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def listed_nodes(self) -> list[dict[str, Any]]:
        return list(self.api("GET", "/api/nodes"))

    def join_token(self) -> str:
        return str(self.api("POST", "/api/nodes/join-tokens", json={})["token"])

    def submit(self, command: str, *arguments: str, **fields: Any) -> str:
        body = {"command": command, "arguments": list(arguments), **fields}
        answer = self.api("POST", "/api/submit", json={"task_type": "command", **body})
        return str(answer["task_ids"][0])

    def status(self, task_id: str, wait_seconds: float = 0) -> dict[str, Any]:
        return dict(self.api("GET", f"/api/status/{task_id}", params={"wait_seconds": wait_seconds}))

    def finished(self, task_id: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the task has ended and return its record."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self.status(task_id, wait_seconds=min(30, max(1, deadline - time.monotonic())))
            if record["status"] in ("completed", "failed", "killed", "killed_oom", "rejected"):
                return record
        raise AssertionError(f"task {task_id} has not ended: {record}")

    def await_state(self, task_id: str, state: str, seconds: float = 90) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            record = self.status(task_id)
            return record if record["status"] == state else None

        return dict(wait_for(reached, f"task {task_id} to be {state}", seconds))

    def output(self, task_id: str, stream: str = "stdout") -> bytes:
        return bytes(self.client.get(f"/api/tasks/{task_id}/{stream}").content)

    def cli_environment(self) -> dict[str, str]:
        """What makes the command line talk to this cluster; the token is found at the host's home."""
        return {"KOHAKURIVER_PORT": str(self.port)}

    def cli(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run the command line as the user of the host's machine."""
        environment = {**os.environ, "HOME": str(self.host_home), **self.cli_environment()}
        options.setdefault("timeout", 120)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [str(BIN / "kohakuriver"), *arguments],
            env=environment,
            capture_output=True,
            check=False,
            **options,
        )

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        for daemon in self.runners.values():
            daemon.end()
        if self.host is not None:
            self.host.end()
        for name, runner in self.runners.items():
            remove_containers_of(name)
            # Those of one that was killed; one that ends takes them away itself.
            state = runner.home / ".kohakuriver" / "runner" / name
            GuardedBinds.of_runner(name, state, ()).remove()
        for network in self.networks:
            remove_network(network)


def in_uts_namespace(hostname: str, config: Path, programs: Path = BIN) -> list[str]:
    """Arguments that start a runner under its own host name, which ends with it."""
    script = f'hostname {hostname} && exec "$0" "$@"'
    program = str(programs / "kohakuriver.runner")
    return ["unshare", "--uts", "sh", "-c", script, program, "--config", str(config)]


def write_config(path: Path, settings: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))


def remove_containers_of(node: str) -> None:
    """Remove what a test's runner left, which a test of leftovers has looked at before."""
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=kohakuriver.node={node}"],
        capture_output=True,
        check=False,
    )
    ids = listed.stdout.decode().split()
    if ids:
        subprocess.run(["docker", "rm", "-fv", *ids], capture_output=True, check=False)


def remove_network(name: str) -> None:
    """Remove a network of the engine, and the filter tables of its bridge."""
    shown = subprocess.run(
        ["docker", "network", "inspect", "-f", "{{.Id}}", name], capture_output=True, check=False
    )
    subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
    if shown.returncode == 0:
        remove_filter_tables(f"br-{shown.stdout.decode()[:12]}")


def remove_filter_tables(bridge: str) -> None:
    for family in ("bridge", "inet"):
        argv = ["nft", "delete", "table", family, f"kohakuriver-{bridge}"]
        subprocess.run(argv, capture_output=True, check=False)


@contextlib.contextmanager
def running_cluster(root: Path, **host_settings: object) -> Iterator[Cluster]:
    """A host, started; stopped and cleaned up at the end."""
    cluster = Cluster(root)
    try:
        cluster.start_host(**host_settings)
        yield cluster
    finally:
        cluster.stop()


def write_busybox_tarball(folder: Path, environment: str) -> Path:
    """Make the tarball of an environment that holds a static busybox and nothing else.

    Its time is made from its content, since nodes that share an engine know versions by their times.
    """
    listed = subprocess.run(["busybox", "--list"], capture_output=True, check=True).stdout.decode().split()
    tree = busybox_tree(applets=tuple(name for name in listed if name != "busybox"))
    version = 1_000_000_000 + zlib.crc32(tree) % 500_000_000
    path = folder / f"{environment}-{version}.tar"
    if path.exists():
        return path
    reference = f"kohakuriver-test-busybox:{os.getpid()}"
    subprocess.run(["docker", "import", "-", reference], input=tree, capture_output=True, check=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["docker", "save", "-o", str(path), reference], capture_output=True, check=True)
    finally:
        subprocess.run(["docker", "rmi", reference], capture_output=True, check=False)
    return path
