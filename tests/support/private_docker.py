"""A second Docker daemon that shares nothing with the machine's own, and leaves nothing behind.

It has its own network and mount namespace (with a /run of its own), folders, cgroup and containerd. The
process namespace is the machine's, so that container pids mean the same outside. Needs root.

    with private_dockerd(tmp_path, extra_path=[NVIDIA_HOOK_DIR]) as daemon:
        os.environ["DOCKER_HOST"] = daemon.url
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NVIDIA_HOOK_DIR = Path(__file__).with_name("nvidia_hook")
"""On the daemon's PATH, this makes it accept GPU device requests."""

_CGROUPS = Path("/sys/fs/cgroup")
_SCRIPT = 'mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && exec dockerd "$@"'


@dataclass(frozen=True)
class PrivateDocker:
    """`pid` is the daemon's; its namespaces can be joined through it (`nsenter --net=/proc/<pid>/ns/net`)."""

    url: str
    pid: int
    folder: Path
    cgroup: str


@contextlib.contextmanager
def private_dockerd(
    tmp_path: Path, extra_path: Sequence[Path] = (), options: Sequence[str] = (), start_seconds: float = 40
) -> Iterator[PrivateDocker]:
    """Run a daemon with its data below `tmp_path`; `extra_path` comes first on its PATH."""
    name = f"kohakuriver-test-{uuid.uuid4().hex[:8]}"
    folder = tmp_path / name
    folder.mkdir(parents=True)
    # The path of a socket has at most 107 bytes; those that a test's own folder can be too long for go here.
    socket = Path(tempfile.mkdtemp(prefix="krd-")) / "docker.sock"
    log_path = folder / "dockerd.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _arguments(folder, socket, options),
            env=os.environ | {"PATH": os.pathsep.join([*map(str, extra_path), os.environ["PATH"]])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    daemon = PrivateDocker(f"unix://{socket}", process.pid, folder, name)
    try:
        _wait(
            lambda: _answers(daemon, process, log_path), start_seconds, f"dockerd; see its log:\n{log_path}"
        )
        yield daemon
    finally:
        _end(daemon, process)
        shutil.rmtree(socket.parent)


def _arguments(folder: Path, socket: Path, options: Sequence[str]) -> list[str]:
    daemon_options = {
        "--data-root": folder / "data",
        "--exec-root": f"/run/{folder.name}",  # in its own /run
        "--pidfile": folder / "dockerd.pid",
        "--host": f"unix://{socket}",
        "--cgroup-parent": f"/{folder.name}",
        "--storage-driver": _storage_driver(folder),
        # Its own file, so that settings of the machine's daemon do not apply.
        "--config-file": folder / "daemon.json",
    }
    (folder / "daemon.json").write_text("{}")
    flags = [text for option, value in daemon_options.items() for text in (option, str(value))]
    namespaces = ["unshare", "--net", "--mount", "--propagation", "slave"]
    return [*namespaces, "sh", "-c", _SCRIPT, "dockerd", *flags, *options]


def _storage_driver(folder: Path) -> str:
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


def _answers(daemon: PrivateDocker, process: subprocess.Popen[bytes], log_path: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"dockerd ended with {process.returncode}:\n{log_path.read_text()[-3000:]}")
    probe = ["docker", "--host", daemon.url, "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _end(daemon: PrivateDocker, process: subprocess.Popen[bytes]) -> None:
    """End containers, daemon, and whatever of it is left; then its cgroups and files."""
    if process.poll() is None:
        docker = ["docker", "--host", daemon.url]
        listed = subprocess.run(
            [*docker, "ps", "-aq"], capture_output=True, text=True, check=False, timeout=30
        )
        if listed.stdout.split():
            remove = [*docker, "rm", "--force", "--volumes", *listed.stdout.split()]
            subprocess.run(remove, capture_output=True, check=False, timeout=60)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    left = [*_processes_in_cgroup(daemon), *_processes_naming(f"/run/{daemon.cgroup}/")]
    for pid in {*left, *([process.pid] if process.poll() is None else [])}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
    _wait(lambda: not _processes_naming(f"/run/{daemon.cgroup}/"), 10, "the end of the daemon's processes")
    for cgroup in _cgroups(daemon):
        for child in sorted(cgroup.rglob("*"), reverse=True):
            if child.is_dir():
                child.rmdir()
        cgroup.rmdir()
    # Its mounts were in its own namespace and went with the last process in it.
    shutil.rmtree(daemon.folder)


def _cgroups(daemon: PrivateDocker) -> list[Path]:
    """The daemon's cgroup in each hierarchy (one in cgroup v2)."""
    return [
        path for path in (*_CGROUPS.glob(f"*/{daemon.cgroup}"), _CGROUPS / daemon.cgroup) if path.is_dir()
    ]


def _processes_in_cgroup(daemon: PrivateDocker) -> list[int]:
    files = (file for cgroup in _cgroups(daemon) for file in cgroup.rglob("cgroup.procs"))
    return [int(pid) for file in files for pid in file.read_text().split()]


def _processes_naming(text: str) -> list[int]:
    """Processes with the text in their arguments: containerd and its shims name the daemon's folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)
