"""SSH into a VPS through the gateway, beside plain SSH to the same sshd: login, streams, many at once.

`jump` is stock ssh through the gateway (`ssh -J`); `command` is `kohakuriver ssh`, one more hop in Python.
"""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.clusters import NODE, real_cluster, vps_image
from bench.measuring import BIN, Figure, spread, summary
from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import Cluster

SECTION = "ssh"
_LOGIN_TARGET_RATIO = 3.0
_RATE_TARGET_RATIO = 0.3
_AT_ONCE = 20


@dataclass(frozen=True)
class Way:
    """One way into the VPS: the words before what is to be run there."""

    name: str
    argv: list[str]
    environment: dict[str, str]

    def run(self, command: str, size_bytes: int = 0) -> float:
        """Seconds that a command takes, fed with so many zeros."""
        began = time.perf_counter()
        with subprocess.Popen(
            [*self.argv, command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            piece = bytes(1 << 20)
            for _ in range(size_bytes >> 20):
                process.stdin.write(piece)
            process.stdin.close()
            if process.wait() != 0:  # waiting with a time limit looks only every 50 ms
                raise RuntimeError(f"{self.name}: {command} ended with {process.returncode}")
        return time.perf_counter() - began


def measure(quick: bool) -> Iterator[Figure]:
    image = asyncio.run(vps_image())
    with (
        real_cluster(LOCAL_IMAGES=[image]) as (cluster, _),
        tempfile.TemporaryDirectory(prefix="kr-bench-ssh-") as folder,
    ):
        key = make_key(Path(folder) / "key")
        body = {"registry_image": image, "ssh_public_key": public_key_of(key), "target_hostname": NODE}
        vps = str(cluster.api("POST", "/api/vps/create", json=body)["task_id"])
        try:
            cluster.await_state(vps, "running")
            ways = _ways(cluster, vps, key, Path(folder) / "config")
            yield from _logins(ways, 5 if quick else 20)
            yield from _streams(ways, 64 if quick else 256)
            yield from _many(ways[1])
        finally:
            cluster.api("POST", f"/api/kill/{vps}")
            cluster.await_state(vps, "killed")


def _ways(cluster: Cluster, vps: str, key: Path, config: Path) -> list[Way]:
    environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
    told = cluster.cli("ssh", "config", "-i", str(key))
    config.write_bytes(told.stdout)
    address = cluster.status(vps)["address"]
    plain = ["ssh", "-F", str(config), "-o", f"HostName={address}", "-o", "ProxyJump=none", f"vps-{vps}"]
    return [
        Way("plain ssh", plain, environment),
        Way("jump", ["ssh", "-F", str(config), f"vps-{vps}"], environment),
        Way("command", [str(BIN / "kohakuriver"), "ssh", "-i", str(key), vps], environment),
    ]


def _logins(ways: list[Way], count: int) -> Iterator[Figure]:
    """In turns, so that other work on the machine meets all alike. The first round only warms up."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(count + 1):
        for way in ways:
            taken = way.run("true")
            if number:
                seconds[way.name].append(taken)
    plain = summary(seconds[ways[0].name])["median_ms"]
    for way in ways:
        told = summary(seconds[way.name])
        yield Figure(SECTION, f"login and `true`, {way.name}", told["median_ms"], "ms", note=spread(told))
    ratio = round(summary(seconds[ways[1].name])["median_ms"] / plain, 2)
    yield Figure(SECTION, "  jump, of plain ssh", ratio, "x", _LOGIN_TARGET_RATIO, at_most=True)


def _streams(ways: list[Way], mib: int) -> Iterator[Figure]:
    for direction, command, sent_bytes in (
        ("into the VPS", "cat >/dev/null", mib << 20),
        ("out of it", f"head -c {mib}M /dev/zero", 0),
    ):
        rates = {way.name: round(mib / way.run(command, sent_bytes), 1) for way in ways}
        for way in ways:
            yield Figure(SECTION, f"{mib} MiB {direction}, {way.name}", rates[way.name], "MiB/s")
        ratio = round(rates[ways[1].name] / rates[ways[0].name], 2)
        yield Figure(SECTION, "  jump, of plain ssh", ratio, "x", _RATE_TARGET_RATIO)


def _many(way: Way) -> Iterator[Figure]:
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        taken = list(pool.map(lambda _: way.run("true"), range(_AT_ONCE)))
    whole = round(time.perf_counter() - began, 2)
    yield Figure(SECTION, f"{_AT_ONCE} logins at once, {way.name}", whole, "s", note=spread(summary(taken)))
