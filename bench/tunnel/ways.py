"""The ways to a port of a workload. Each leads over loopback of this machine and ends at the same service.

Without the tunnel it would be `ssh -J HOST NODE -L PORT:WORKLOAD:PORT`, so that is what stands beside it: two
sshd of OpenSSH, with its defaults. `socat` has as many relays as the tunnel: at the laptop, on the host, on
the node, and in the workload.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.measuring import BIN, ROOT
from bench.tunnel.traffic import Address
from support.clients.vps_sshd import vps_sshd
from support.cluster.cluster import Cluster, free_port, wait_for

PLAIN, TUNNEL, SSH, SOCAT = "plain TCP", "forward", "ssh -L", "socat"
_RELAYS = 4
_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Way:
    """`hops`: the processes of each, whose processor time is counted."""

    name: str
    address: Address
    hops: dict[str, list[int]] = field(default_factory=dict)


@contextlib.contextmanager
def ways_into(cluster: Cluster, task_id: str, folder: Path) -> Iterator[list[Way]]:
    """All that this machine has programs for; says which are left out."""
    pid = workload_pid(task_id)
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(_service(pid))
        ways = [Way(PLAIN, service), stack.enter_context(_forward(cluster, task_id, pid, service[1]))]
        if _has("ssh", "openssh-client") and _has("/usr/sbin/sshd", "openssh-server"):
            ways.append(stack.enter_context(_ssh(service, folder)))
        if _has("socat", "socat"):
            ways.append(stack.enter_context(_socat(service)))
        yield ways


def _has(program: str, package: str) -> bool:
    if shutil.which(program):
        return True
    print(f"{program} is not on this machine, so its way is left out; apt-get install {package}")
    return False


def workload_pid(task_id: str) -> int:
    argv = ["docker", "inspect", "-f", "{{.State.Pid}}", f"kohakuriver-task-{task_id}"]
    return int(subprocess.run(argv, check=True, capture_output=True).stdout)


@contextlib.contextmanager
def _service(pid: int) -> Iterator[Address]:
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "bench.tunnel.service"]
    with _running(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        address, port = process.stdout.readline().split()
        yield address.decode(), int(port)


@contextlib.contextmanager
def _forward(cluster: Cluster, task_id: str, pid: int, port: int) -> Iterator[Way]:
    environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
    argv = [str(BIN / "kohakuriver"), "forward", task_id, f"0:{port}"]
    with _running(argv, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        shown = process.stdout.readline().decode()
        if not shown:
            raise RuntimeError("`kohakuriver forward` has ended, with what it says above")
        local = int(shown.split(" ")[0].rpartition(":")[2])
        hops = {
            "command line": [process.pid],
            "host": [_pid_of(cluster.host)],
            "runner": [_pid_of(next(iter(cluster.runners.values())))],
            "client": [_client_beside(pid)],
        }
        yield Way(TUNNEL, ("127.0.0.1", local), hops)


def _pid_of(daemon: object) -> int:
    process = getattr(daemon, "process", None)
    assert isinstance(process, subprocess.Popen)
    return process.pid


def _client_beside(pid: int) -> int:
    """The tunnel client in the network of a workload."""
    network = os.readlink(f"/proc/{pid}/ns/net")
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "tunnel-client":
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/net") == network:
                    return int(process.pid)
    raise RuntimeError("no tunnel client runs beside the workload")


@contextlib.contextmanager
def _ssh(service: Address, folder: Path) -> Iterator[Way]:
    with vps_sshd(folder / "host") as host, vps_sshd(folder / "node") as node:
        config = folder / "ssh_config"
        config.write_text(
            f"Host host\n Port {host.port}\n IdentityFile {host.user_key}\n"
            f"Host node\n Port {node.port}\n IdentityFile {node.user_key}\n ProxyJump host\n"
            f"Host *\n HostName 127.0.0.1\n User {node.user}\n IdentitiesOnly yes\n BatchMode yes\n"
            " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
            " ExitOnForwardFailure yes\n"
        )
        local = free_port()
        asked = f"127.0.0.1:{local}:{service[0]}:{service[1]}"
        daemons = _children_of(os.getpid())
        with _running(["ssh", "-F", str(config), "-N", "-L", asked, "node"]) as process:
            _await_listening(local)
            ours = {process.pid, *_children_of(process.pid)}
            servers = [pid for pid in _children_of(os.getpid()) - daemons - ours if _name(pid) == "sshd"]
            yield Way(SSH, ("127.0.0.1", local), {"ssh": sorted(ours), "both sshd": servers})


def _children_of(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).name()
    return ""


@contextlib.contextmanager
def _socat(service: Address) -> Iterator[Way]:
    with contextlib.ExitStack() as stack:
        host, port = service
        for _ in range(_RELAYS):
            local = free_port()
            listen = f"TCP-LISTEN:{local},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=1024"
            stack.enter_context(_running(["socat", listen, f"TCP:{host}:{port},nodelay"]))
            _await_listening(local)
            host, port = "127.0.0.1", local
        yield Way(SOCAT, (host, port))


def _await_listening(port: int) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_for(listens, f"port {port} to be listened on", _DEADLINE_SECONDS)


@contextlib.contextmanager
def _running(argv: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with all that it has started."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)  # type: ignore[call-overload] # options of Popen
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(_DEADLINE_SECONDS)
