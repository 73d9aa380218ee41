"""VPSs, beside the bare Docker API with the same image: life, snapshot, terminal."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.clusters import NODE, real_cluster, vps_image
from bench.measuring import Figure, spread, summary
from kohakuriver.client.connection.host_trust import HostAccess, KnownHost
from kohakuriver.client.streams.terminal import task_command, task_terminal
from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.enums import Flow
from kohakuriver.wire.terminal_frames import Start
from support.cluster.cluster import Cluster, wait_for

SECTION = "sessions"
_STREAM_MIB = 100
_DEADLINE_SECONDS = 60.0
_BARE = "kr-bench-bare-session"
_SSHD = (
    "test -f /key || ssh-keygen -q -t ed25519 -N '' -f /key; mkdir -p /run/sshd; "
    "exec /usr/sbin/sshd -D -o HostKey=/key -o AuthorizedKeysFile=/keys"
)


def measure(quick: bool) -> Iterator[Figure]:
    image = asyncio.run(vps_image())
    with real_cluster(LOCAL_IMAGES=[image]) as (cluster, _):
        yield from _life(cluster, image, 3 if quick else 8)
        vps = _create(cluster, image)
        try:
            yield from _terminal(cluster, vps, image, 200 if quick else 1000)
        finally:
            cluster.api("POST", f"/api/kill/{vps}")
            cluster.await_state(vps, "killed")


def _create(cluster: Cluster, image: str) -> str:
    body = {"registry_image": image, "ssh_public_key": new_key_pair("bench").public, "target_hostname": NODE}
    return str(cluster.api("POST", "/api/vps/create", json=body)["task_id"])


def _life(cluster: Cluster, image: str, count: int) -> Iterator[Figure]:
    """Alternately, so that other work on the machine meets both alike."""
    ours: dict[str, list[float]] = {"create": [], "stop": [], "restart": []}
    bare: dict[str, list[float]] = {"create": [], "stop": [], "restart": []}
    for number in range(count + 1):
        for times, run in ((bare, _bare_life), (ours, lambda image: _our_life(cluster, image))):
            for name, seconds in run(image).items():
                if number:  # the first of each warms up
                    times[name].append(seconds)
    said = {
        "create": "create to SSH banner",
        "stop": "stop with snapshot",
        "restart": "restart to SSH banner",
    }
    for name, words in said.items():
        our, plain = summary(ours[name]), summary(bare[name])
        yield Figure(SECTION, f"bare Docker, {words}", plain["median_ms"], "ms", note=spread(plain))
        yield Figure(SECTION, words, our["median_ms"], "ms", note=spread(our))
        ratio = round(our["median_ms"] / plain["median_ms"], 2)
        yield Figure(SECTION, "  of the bare time", ratio, "x", note="ratio of the medians")


def _our_life(cluster: Cluster, image: str) -> dict[str, float]:
    began = time.perf_counter()
    vps = _create(cluster, image)
    _await_banner(lambda: _address(cluster, vps))
    created = time.perf_counter()
    cluster.api("POST", f"/api/vps/stop/{vps}")
    cluster.await_state(vps, "stopped")
    stopped = time.perf_counter()
    cluster.api("POST", f"/api/vps/restart/{vps}")
    _await_banner(lambda: _address(cluster, vps))
    restarted = time.perf_counter()
    cluster.api("POST", f"/api/kill/{vps}")
    cluster.await_state(vps, "killed")
    cluster.api("DELETE", f"/api/vps/snapshots/{vps}")
    return {"create": created - began, "stop": stopped - created, "restart": restarted - stopped}


def _address(cluster: Cluster, vps: str) -> str | None:
    record = cluster.status(vps)
    return str(record["address"]) if record["status"] == "running" else None


def _bare_life(image: str) -> dict[str, float]:
    """What somebody would do by hand: run, commit, stop, remove, and run from what was committed."""
    snapshot = f"{_BARE}:snapshot"
    began = time.perf_counter()
    try:
        _bare_run(image)
        created = time.perf_counter()
        _docker("commit", _BARE, snapshot)
        _docker("stop", "-t", "5", _BARE)
        _docker("rm", "-f", _BARE)
        stopped = time.perf_counter()
        _bare_run(snapshot)
        restarted = time.perf_counter()
    finally:
        subprocess.run(["docker", "rm", "-f", _BARE], capture_output=True, check=False)
        subprocess.run(["docker", "rmi", "-f", snapshot], capture_output=True, check=False)
    return {"create": created - began, "stop": stopped - created, "restart": restarted - stopped}


def _bare_run(image: str) -> None:
    _docker("run", "-d", "--init", "--name", _BARE, "--entrypoint", "sh", image, "-c", _SSHD)
    form = "{{.NetworkSettings.IPAddress}}"
    _await_banner(lambda: _docker("inspect", "-f", form, _BARE).strip())


def _await_banner(address: Callable[[], str | None]) -> None:
    wait_for(lambda: (where := address()) and _has_banner(where), "an SSH banner", _DEADLINE_SECONDS)


def _has_banner(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 22), timeout=5) as connection:
        return connection.recv(8).startswith(b"SSH-2.0")
    return False


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def _terminal(cluster: Cluster, vps: str, image: str, count: int) -> Iterator[Figure]:
    wait_for(lambda: _address(cluster, vps), "the VPS", _DEADLINE_SECONDS)
    container = f"kohakuriver-vps-{vps}"
    _docker("exec", container, "sh", "-c", f"head -c {_STREAM_MIB}M /dev/urandom | base64 -w 76 > /stream")
    size = int(_docker("exec", container, "stat", "-c", "%s", "/stream"))
    cat = ("cat", "/stream")
    bare = _rate(size, lambda: _read_docker(container, cat))
    ours = _rate(size, lambda: _read_command(cluster, vps, cat))
    note = f"{size >> 20} MiB of text; by `docker exec -t` {bare:.0f} MiB/s"
    yield Figure(SECTION, "terminal throughput (`cat`)", round(ours, 1), "MiB/s", note=note)
    yield Figure(SECTION, "  of the bare rate", round(ours / bare, 2), "x")
    told = summary(_echoes(cluster, vps, count))
    yield Figure(
        SECTION,
        "echo round trip, median",
        told["median_ms"],
        "ms",
        10,
        at_most=True,
        note=f"p99 {told['p99_ms']} ms, n = {told['n']}; client, host, runner and shell on one machine",
    )


def _rate(size: int, read: Callable[[], int]) -> float:
    """MiB per second, the better of two runs; a terminal adds a carriage return to each line."""
    best = 0.0
    for _ in range(2):
        began = time.perf_counter()
        got = read()
        if got < size:
            raise RuntimeError(f"{got} of {size} bytes arrived")
        best = max(best, got / (1 << 20) / (time.perf_counter() - began))
    return best


def _read_docker(container: str, argv: tuple[str, ...]) -> int:
    process = subprocess.Popen(["docker", "exec", "-t", container, *argv], stdout=subprocess.PIPE)
    assert process.stdout is not None
    got = 0
    while piece := process.stdout.read(1 << 16):
        got += len(piece)
    process.wait()
    return got


def _access(cluster: Cluster) -> HostAccess:
    return HostAccess(cluster.url, cluster.token, KnownHost(cluster.fingerprint, "the bench"))


def _read_command(cluster: Cluster, vps: str, argv: tuple[str, ...]) -> int:
    with task_command(_access(cluster), vps, Start(argv, rows=24, cols=80)) as terminal:
        return sum(len(data) for flow, data in terminal.output() if flow is Flow.OUTPUT)


def _echoes(cluster: Cluster, vps: str, count: int) -> list[float]:
    """Seconds from a key to its echo, in a shell of a real terminal."""
    query: dict[str, Any] = {"rows": 24, "cols": 80}
    with task_terminal(_access(cluster), vps, query) as terminal:
        output = terminal.output()
        terminal.send(b"stty -onlcr; PS1=; exec cat\n")
        time.sleep(1)  # what the shell says at its start is not part of it
        terminal.send(b"~\n")
        while b"~\n" not in next(output)[1]:
            pass
        times = []
        for number in range(count):
            key = bytes((97 + number % 26,))
            began = time.perf_counter()
            terminal.send(key)
            while key not in next(output)[1]:
                pass
            times.append(time.perf_counter() - began)
        return times
