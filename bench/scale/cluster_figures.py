"""What a running host says of itself and costs, at one moment; the difference of two is what happened."""

from dataclasses import dataclass

from bench.measuring import cpu_seconds
from support.cluster.cluster import Cluster


@dataclass(frozen=True)
class Reading:
    """Counters since the start of the host, seconds unless the name says otherwise."""

    cpu: float
    scheduling: float
    turns: float
    commits: float
    placements: float

    def since(self, earlier: "Reading") -> "Reading":
        return Reading(
            self.cpu - earlier.cpu,
            self.scheduling - earlier.scheduling,
            self.turns - earlier.turns,
            self.commits - earlier.commits,
            self.placements - earlier.placements,
        )


def host_pid(cluster: Cluster) -> int:
    assert cluster.host is not None
    assert cluster.host.process is not None
    return cluster.host.process.pid


def scrape(cluster: Cluster) -> dict[str, float]:
    """The host's metrics by name with labels, as they are written."""
    text = cluster.client.get("/metrics").text
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def read(cluster: Cluster) -> Reading:
    told = scrape(cluster)
    return Reading(
        cpu=cpu_seconds(host_pid(cluster)),
        scheduling=told["kohakuriver_control_scheduling_seconds_total"],
        turns=told["kohakuriver_control_turn_seconds_sum"],
        commits=told["kohakuriver_control_commits_total"],
        placements=told["kohakuriver_control_placements_total"],
    )
