"""Breaks a lab cluster at random for minutes, under a stream of tasks, and judges what became of them.

    python tools/soak.py [--minutes 10] [--tasks 1000] [--nodes 3] [--seed N] [--kinds kill_host,cut,…]

The same seed brings the same tasks and the same faults at the same times. The record is kept as JSON; the
exit status is 1 if a promise was broken. Needs root and Docker.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from fault.campaign import Campaign, CampaignOptions, plan_for  # noqa: E402 - found once the path is set
from fault.campaign_checks import summary, violations  # noqa: E402
from fault.schedule import FaultKind  # noqa: E402
from support.lab.lab import Lab  # noqa: E402


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="kohakuriver-soak-"))
    size = f"{options.minutes:g} minutes, {options.tasks} tasks, {options.nodes} nodes"
    _say(f"soak: seed {options.seed}, {size}; everything is kept in {folder}")
    _say(f"soak: replay with: {_command(options)}")
    lab = Lab(folder)
    try:
        lab.start(nodes=options.nodes)
        chosen = CampaignOptions(options.seed, options.minutes * 60, options.tasks, options.kinds)
        record = Campaign(lab, plan_for(lab, chosen), _say).run()
    finally:
        lab.stop()
    record.write(folder / "record.json")
    broken = violations(record)
    for complaint in record.complaints:
        _say(f"met: {complaint.splitlines()[0][:300]}")
    for sentence in broken:
        _say(f"BROKEN: {sentence}")
    print(summary(record, broken))
    print(f"record            {folder / 'record.json'}")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break a lab cluster at random and judge what became of it.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument(
        "--kinds", type=_kinds, default=tuple(FaultKind), help="faults that may come; default: all"
    )
    return parser.parse_args()


def _command(options: argparse.Namespace) -> str:
    size = f"MINUTES={options.minutes:g} TASKS={options.tasks} NODES={options.nodes} SEED={options.seed}"
    kinds = "" if options.kinds == tuple(FaultKind) else f" KINDS={','.join(options.kinds)}"
    return f"make soak {size}{kinds}"


def _kinds(text: str) -> tuple[FaultKind, ...]:
    return tuple(FaultKind(name) for name in text.split(","))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
