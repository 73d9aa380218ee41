"""Runs the benchmarks, prints figures beside their targets and keeps them in bench/results/.

    python bench/run.py [host] [cluster] [cli] [footprint] [--quick] [--name NAME] [--note TEXT] [--no-file]

Nothing is asserted: a target that is not reached is shown as such, and the exit status stays 0.
"""

import argparse
import json
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
}


def main() -> None:
    options = _options()
    before = machine()
    figures: list[Figure] = []
    for name in options.sections or SECTIONS:
        measure: Callable[[bool], Iterator[Figure]] = import_module(SECTIONS[name]).measure
        for figure in measure(options.quick):
            figures.append(figure)
            print(_row(figure), flush=True)
    reached = [figure.reached for figure in figures if figure.reached is not None]
    print(f"\n{sum(reached)} of {len(reached)} targets reached")
    if not options.no_file:
        print(f"kept in {_keep(figures, before, options).relative_to(ROOT)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed and footprint.")
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--name", default="", help="short name for the file of results")
    parser.add_argument("--note", default="", help="what a reader of the results should know")
    parser.add_argument("--no-file", action="store_true", help="print only")
    return parser.parse_args()


def _row(figure: Figure) -> str:
    verdict = {True: "reached", False: "NOT REACHED", None: ""}[figure.reached]
    sign = "<=" if figure.at_most else ">="
    target = "" if figure.target is None else f"{sign} {figure.target:g} {figure.unit}"
    value = f"{figure.value:g} {figure.unit}"
    return f"{figure.section:<13} {figure.name:<50} {value:>14}  {target:<14} {verdict:<12} {figure.note}"


def _keep(figures: list[Figure], before: dict[str, object], options: argparse.Namespace) -> Path:
    now = datetime.now(UTC)
    name = options.name or "-".join(options.sections or ["all"])
    path = ROOT / "bench" / "results" / f"{now:%Y-%m-%d}-{name}.json"
    content = {
        "at": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "quick": options.quick,
        "note": options.note,
        "machine": before,
        "load_average_after": machine()["load_average"],
        "figures": [{**asdict(figure), "reached": figure.reached} for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    main()
