"""Measures the control plane at size and keeps the figures in bench/results/.

    python bench/scale/run.py [placing] [curve] [steady] [--nodes N] [--queued N] [--past N] [--followers N]
                              [--seconds S] [--name NAME] [--note TEXT] [--no-file]

Nothing is asserted: a target that is not reached is shown as such, and the exit status stays 0.
"""

import argparse
import signal
import sys
from dataclasses import asdict, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.measuring import Figure, machine  # noqa: E402 - found once the path is set
from bench.run import keep, row_of, verdict_on  # noqa: E402
from bench.scale.measure import PARTS, Sizes  # noqa: E402


def main() -> None:
    options = _options()
    sizes = Sizes(**{field.name: getattr(options, field.name) for field in fields(Sizes)})
    before = machine()
    figures: list[Figure] = []
    for name in options.parts or PARTS:
        for figure in PARTS[name](sizes):
            figures.append(figure)
            print(row_of(figure), flush=True)
    print(verdict_on(figures))
    if not options.no_file:
        settings = {"sizes": asdict(sizes), "note": options.note}
        print(f"kept in {keep(options.name, figures, before, settings).relative_to(ROOT)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the control plane at size.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all of them")
    for field in fields(Sizes):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help="default: %(default)s")
    parser.add_argument("--name", default="scale", help="short name for the file of results")
    parser.add_argument("--note", default="", help="what a reader of the results should know")
    parser.add_argument("--no-file", action="store_true", help="print only")
    return parser.parse_args()


if __name__ == "__main__":
    # Ended from outside, everything that was started still ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
