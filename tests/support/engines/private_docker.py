"""Docker daemons that share nothing with the machine's own, and leave nothing behind.

Each has its own network and mount namespace (with a /run of its own), folders, cgroup and containerd. The
process namespace is the machine's, so that container pids mean the same outside. Needs root.

    with private_dockerd(tmp_path, extra_path=[NVIDIA_HOOK_DIR]) as daemon:
        os.environ["DOCKER_HOST"] = daemon.url
"""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.machine.namespaces import Namespaces
from support.machine.processes import (
    cgroups_named,
    kill_until_none,
    processes_in,
    processes_naming,
    remove_cgroups,
    wait_until,
)

NVIDIA_HOOK_DIR = Path(__file__).with_name("nvidia_hook")
"""On the daemon's PATH, this makes it accept GPU device requests."""


@dataclass(frozen=True)
class DaemonPlace:
    """Where a daemon is: `name` is also that of its cgroup and of its folder in its own /run.

    `folder` need not exist. The path of `socket` has at most 107 bytes.
    """

    namespaces: Namespaces
    name: str
    folder: Path
    socket: Path
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class DockerDaemon:
    """One daemon, which can be ended and started again in its place; `clear` ends all of it."""

    def __init__(self, place: DaemonPlace) -> None:
        self.place = place
        self.url = f"unix://{place.socket}"
        self.log = place.folder / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs. What is left of an earlier one must have ended, or it would be used."""
        if self.is_running():
            return
        self._forget_old_containerd()
        # Killed, it stays a zombie where process 1 reaps none, which the next daemon would take for alive.
        run = Path(f"/proc/{self.place.namespaces.pid}/root/run/{self.place.name}")
        (run / "containerd" / "containerd.pid").unlink(missing_ok=True)
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.place.namespaces.argv(*self._arguments()),
                env={**os.environ, **self.place.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_containerd(self) -> None:
        """One that goes on when the daemon ends, as where both are services of the machine."""
        folder = self.place.folder
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        options = {
            "--config": config,  # its own, so that settings of the machine's do not apply
            "--address": self._containerd_socket,
            "--root": folder / "containerd",
            "--state": f"/run/{self.place.name}/containerd-state",
        }
        words = [str(word) for option in options.items() for word in option]
        with (folder / "containerd.log").open("ab") as log:
            self._containerd = subprocess.Popen(
                self.place.namespaces.argv("containerd", *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def _containerd_socket(self) -> str:
        return f"/run/{self.place.name}/containerd-service.sock"

    def await_answer(self, seconds: float = 40) -> None:
        wait_until(self._answers, seconds, f"dockerd; see its log: {self.log}")

    def end(self, with_signal: int = signal.SIGTERM, seconds: float = 30) -> None:
        """End only the daemon: with live-restore its containers go on."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(with_signal)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments: str) -> str:
        """Run `docker` against it and return what it says."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def forgets_ends(self) -> bool:
        """Whether its containerd, which goes with it, clears away unseen what ended meanwhile: 1.7 does."""
        if self._containerd is not None:
            return False
        asked = '{{range .Server.Components}}{{if eq .Name "containerd"}}{{.Version}}{{end}}{{end}}'
        major, minor = self.run("version", "--format", asked).lstrip("v").split(".")[:2]
        return (int(major), int(minor)) >= (1, 7)

    def clear(self) -> None:
        """End the daemon, its containers, and whatever of it is left; then its cgroups and files go.

        Its mounts are in its own namespace and go with the last process there.
        """
        self.end(signal.SIGKILL)
        name = self.place.name
        kill_until_none(lambda: processes_in(cgroups_named(name)), f"the containers of {name}")
        kill_until_none(lambda: processes_naming(f"/run/{name}/"), f"the processes of {name}")
        if self._containerd is not None:
            self._containerd.wait()
        remove_cgroups(cgroups_named(name))
        self.place.namespaces.end()
        shutil.rmtree(self.place.folder, ignore_errors=False)

    def _forget_old_containerd(self) -> None:
        """It ends with its daemon. One that nobody has reaped yet would be taken for one that runs."""
        folder = f"/run/{self.place.name}/containerd"
        wait_until(lambda: not processes_naming(f"{folder}/containerd.toml"), 20, "the end of containerd")
        self.place.namespaces.run("rm", "-f", f"{folder}/containerd.pid")

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"dockerd has ended:\n{self.log.read_text()[-3000:]}")
        probe = ["docker", "--host", self.url, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def _arguments(self) -> list[str]:
        folder = self.place.folder
        daemon_options = {
            "--data-root": folder / "data",
            "--exec-root": f"/run/{self.place.name}",  # in its own /run
            "--pidfile": folder / "dockerd.pid",
            "--host": self.url,
            "--cgroup-parent": f"/{self.place.name}",
            "--storage-driver": storage_driver(folder),
            # Its own file, so that settings of the machine's daemon do not apply.
            "--config-file": folder / "daemon.json",
        }
        (folder / "daemon.json").write_text("{}")
        if self._containerd is not None:
            daemon_options["--containerd"] = self._containerd_socket
        flags = [text for option, value in daemon_options.items() for text in (option, str(value))]
        return ["dockerd", *flags, *self.place.options]


@dataclass(frozen=True)
class PrivateDocker:
    """`pid` is the daemon's; its namespaces can be joined through it (`nsenter --net=/proc/<pid>/ns/net`)."""

    url: str
    pid: int
    folder: Path
    cgroup: str


@contextlib.contextmanager
def own_daemon(
    folder: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    start_seconds: float = 40,
    prepare: Callable[[Namespaces], None] | None = None,
    lasting_containerd: bool = False,
) -> Iterator[DockerDaemon]:
    """A daemon that answers and can be ended and started again; its data below `folder` goes with it.

    `prepare` is called before its first start. `lasting_containerd`: one that does not end with it.
    """
    name = f"kohakuriver-test-{uuid.uuid4().hex[:8]}"
    # A test's own folder can be too long for a socket.
    socket = Path(tempfile.mkdtemp(prefix="krd-")) / "docker.sock"
    namespaces = Namespaces.make(os.uname().nodename)
    daemon = DockerDaemon(
        DaemonPlace(namespaces, name, folder / name, socket, options, dict(environment or {}))
    )
    try:
        if prepare is not None:
            prepare(namespaces)
        if lasting_containerd:
            daemon.start_containerd()
        daemon.start()
        daemon.await_answer(start_seconds)
        yield daemon
    finally:
        daemon.clear()
        shutil.rmtree(socket.parent)


@contextlib.contextmanager
def remapping_daemon(first_id: int = 200_000) -> Iterator[DockerDaemon]:
    """One with `userns-remap`: ids of containers are others outside, from `first_id` on.

    Its folder is one that everybody may pass through, as the mapped root has to.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        users = (pwd.getpwuid(65534).pw_name, grp.getgrgid(65534).gr_name)
        ranges = folder / "ranges"
        ranges.write_text("".join(f"{user}:{first_id}:65536\n" for user in users))

        def give_ranges(namespaces: Namespaces) -> None:
            for file in ("/etc/subuid", "/etc/subgid"):
                namespaces.run("mount", "--bind", str(ranges), file)

        with own_daemon(folder, f"--userns-remap={users[0]}:{users[1]}", prepare=give_ranges) as daemon:
            yield daemon


@contextlib.contextmanager
def private_dockerd(
    tmp_path: Path, extra_path: Sequence[Path] = (), options: Sequence[str] = (), start_seconds: float = 40
) -> Iterator[PrivateDocker]:
    """The same for who only uses it; `extra_path` comes first on its PATH."""
    path = os.pathsep.join([*map(str, extra_path), os.environ["PATH"]])
    with own_daemon(tmp_path, *options, environment={"PATH": path}, start_seconds=start_seconds) as daemon:
        yield PrivateDocker(daemon.url, daemon.pid, daemon.place.folder, daemon.place.name)


def storage_driver(folder: Path) -> str:
    """Overlay where its upper layer can be on this file system, else plain copies."""
    layers = {part: folder / "probe" / part for part in ("lower", "upper", "work", "merged")}
    for layer in layers.values():
        layer.mkdir(parents=True)
    where = "lowerdir={lower},upperdir={upper},workdir={work}".format(**layers)
    mount = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", where, str(layers["merged"])],
        capture_output=True,
        check=False,
    )
    shutil.rmtree(folder / "probe")
    return "overlay2" if mount.returncode == 0 else "vfs"
