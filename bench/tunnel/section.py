"""The tunnel's speed, all ways in turns in one run."""

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clusters import real_cluster
from bench.measuring import Figure, cpu_seconds, summary
from bench.tunnel.service import SEND, TAKE
from bench.tunnel.traffic import connections_a_second, round_trips, stream
from bench.tunnel.ways import PLAIN, SSH, TUNNEL, Way, ways_into
from support.tunnel.services import build_client

SECTION = "tunnel"
_STREAMS = {
    "one stream, down": (SEND, 1),
    "one stream, up": (TAKE, 1),
    "16 streams, down": (SEND, 16),
    "16 streams, up": (TAKE, 16),
}
_RATE_TARGET = 1000.0
_SSH_TARGET_RATIO = 1.3
_ADDED_TARGET_MS = 1.0
_CONNECTIONS_TARGET = 200.0


@dataclass
class Taken:
    """What one way has come to in all rounds."""

    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    trips: list[float] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    seconds_of_hops: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))


def measure(quick: bool) -> Iterator[Figure]:
    build_client()
    rounds, mib = (3, 64) if quick else (7, 128)
    with real_cluster() as (cluster, _), tempfile.TemporaryDirectory(prefix="kr-bench-") as folder:
        task_id = cluster.submit("sleep", "86400")
        cluster.await_state(task_id, "running")
        try:
            with ways_into(cluster, task_id, Path(folder)) as ways:
                taken = {way.name: Taken() for way in ways}
                for number in range(rounds + 1):
                    for way in ways:  # in turns, so that other work on the machine meets all alike
                        _take(way, taken[way.name] if number else Taken(), mib)
        finally:
            cluster.api("POST", f"/api/kill/{task_id}")
            cluster.await_state(task_id, "killed")
    yield from _rates(taken)
    yield from _trips(taken)
    yield from _connections(taken)
    yield from _hops(taken, rounds * mib)


def _take(way: Way, taken: Taken, mib: int) -> None:
    for name, (asked, streams) in _STREAMS.items():
        before = _cpu_of(way)
        taken.rates[name].append(stream(way.address, asked, streams, mib))
        for hop, seconds in _cpu_of(way).items():
            spent = taken.seconds_of_hops[name]
            spent[hop] = spent.get(hop, 0.0) + seconds - before[hop]
    taken.trips += round_trips(way.address, 300)
    taken.connections.append(connections_a_second(way.address, 300))


def _cpu_of(way: Way) -> dict[str, float]:
    return {hop: sum(map(cpu_seconds, pids)) for hop, pids in way.hops.items()}


def _rates(taken: dict[str, Taken]) -> Iterator[Figure]:
    for name, (_, streams) in _STREAMS.items():
        medians = {way: statistics.median(told.rates[name]) for way, told in taken.items()}
        for way, told in taken.items():
            target = _RATE_TARGET if way == TUNNEL and streams == 1 else None
            note = _spread(told.rates[name])
            yield Figure(SECTION, f"{name}, {way}", round(medians[way]), "Mbit/s", target, note=note)
        if SSH in medians:
            ratio = round(medians[TUNNEL] / medians[SSH], 2)
            yield Figure(SECTION, f"  {TUNNEL}, of {SSH}", ratio, "x", _SSH_TARGET_RATIO)


def _trips(taken: dict[str, Taken]) -> Iterator[Figure]:
    told = {way: summary(one.trips) for way, one in taken.items()}
    for way, trips in told.items():
        note = f"p99 {trips['p99_ms']} ms, n = {trips['n']}"
        yield Figure(SECTION, f"round trip, {way}", trips["median_ms"], "ms", note=note)
    added = round(told[TUNNEL]["median_ms"] - told[PLAIN]["median_ms"], 2)
    yield Figure(SECTION, "  added by it", added, "ms", _ADDED_TARGET_MS, at_most=True)


def _connections(taken: dict[str, Taken]) -> Iterator[Figure]:
    for way, told in taken.items():
        target = _CONNECTIONS_TARGET if way == TUNNEL else None
        value = round(statistics.median(told.connections))
        note = _spread(told.connections)
        yield Figure(SECTION, f"connections, {way}", value, "per s", target, note=note)


def _hops(taken: dict[str, Taken], mib: int) -> Iterator[Figure]:
    gigabytes = (mib << 20) / 1e9
    for way, told in taken.items():
        for name, spent in told.seconds_of_hops.items():
            if spent:
                note = ", ".join(f"{hop} {seconds / gigabytes:.2f}" for hop, seconds in spent.items())
                value = round(sum(spent.values()) / gigabytes, 2)
                yield Figure(SECTION, f"CPU, {name}, {way}", value, "s per GB", note=note)


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}, n = {len(values)}"
