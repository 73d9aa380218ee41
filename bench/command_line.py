"""Wall time of the command line, from the start of the process to its end."""

import os
import subprocess
import sys
from collections.abc import Iterator

from bench.clusters import host_alone
from bench.measuring import Figure, summary, timed
from bench.seeding import Seed
from support.cluster.cluster import BIN

SECTION = "command line"
_TASKS = 200


def measure(quick: bool) -> Iterator[Figure]:
    count = 5 if quick else 21
    with host_alone(Seed(past=_TASKS)) as cluster:
        program = str(BIN / "kohakuriver")
        environment = {
            **os.environ,
            "HOME": str(cluster.host_home),
            "KOHAKURIVER_PORT": str(cluster.port),
        }
        yield _figure("python -c pass", [sys.executable, "-c", "pass"], environment, count)
        yield _figure("kohakuriver --help", [program, "--help"], environment, count, 150)
        yield _figure("kohakuriver task list", [program, "task", "list"], environment, count, 300)


def _figure(
    name: str, argv: list[str], environment: dict[str, str], count: int, target: float | None = None
) -> Figure:
    def run() -> None:
        subprocess.run(argv, env=environment, capture_output=True, check=True, timeout=60)

    run()
    told = summary([timed(run) for _ in range(count)])
    note = f"median of {count}; {told['min_ms']:.0f} to {told['max_ms']:.0f} ms"
    return Figure(SECTION, name, told["median_ms"], "ms", target, at_most=True, note=note)
