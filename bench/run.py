"""Runs the benchmarks, prints figures beside their targets and keeps them in bench/results/.

    python bench/run.py [host] [cluster] [cli] ... [--quick] [--name NAME] [--note TEXT] [--no-file]

Nothing is asserted: a target that is not reached is shown as such, and the exit status stays 0.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.measuring import Figure, commit, machine  # noqa: E402 - found once the path is set

SECTIONS = {
    "host": "bench.host_alone",
    "cluster": "bench.real_cluster",
    "cli": "bench.command_line",
    "footprint": "bench.footprint",
    "sandboxes": "bench.sandboxes",
    "sessions": "bench.vps",
    "ssh": "bench.ssh_gateway",
    "tunnel": "bench.tunnel.section",
}


def main() -> None:
    options = _options()
    before = machine()
    figures: list[Figure] = []
    for name in options.sections or SECTIONS:
        measure: Callable[[bool], Iterator[Figure]] = import_module(SECTIONS[name]).measure
        for figure in measure(options.quick):
            figures.append(figure)
            print(row_of(figure), flush=True)
    print(verdict_on(figures))
    if not options.no_file:
        name = options.name or "-".join(options.sections or ["all"])
        settings = {"quick": options.quick, "note": options.note}
        print(f"kept in {keep(name, figures, before, settings).relative_to(ROOT)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed and footprint.")
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--name", default="", help="short name for the file of results")
    parser.add_argument("--note", default="", help="what a reader of the results should know")
    parser.add_argument("--no-file", action="store_true", help="print only")
    return parser.parse_args()


def verdict_on(figures: list[Figure]) -> str:
    reached = [figure.reached for figure in figures if figure.reached is not None]
    return f"\n{sum(reached)} of {len(reached)} targets reached"


def row_of(figure: Figure) -> str:
    verdict = {True: "reached", False: "NOT REACHED", None: ""}[figure.reached]
    sign = "<=" if figure.at_most else ">="
    target = "" if figure.target is None else f"{sign} {figure.target:g} {figure.unit}"
    value = f"{figure.value:g} {figure.unit}"
    return f"{figure.section:<13} {figure.name:<50} {value:>14}  {target:<14} {verdict:<12} {figure.note}"


def keep(name: str, figures: list[Figure], before: dict[str, object], settings: dict[str, object]) -> Path:
    """Write a file of results and return its path. `before`: the machine as it was at the beginning."""
    now = datetime.now(UTC)
    path = ROOT / "bench" / "results" / f"{now:%Y-%m-%d}-{name}.json"
    content = {
        "at": now.isoformat(timespec="seconds"),
        "commit": commit(),
        **settings,
        "machine": before,
        "load_average_after": machine()["load_average"],
        "figures": [{**asdict(figure), "reached": figure.reached} for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    # Ended from outside, everything that was started still ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
