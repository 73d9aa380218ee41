"""Starts and ends a lab cluster by hand: `make lab NODES=3`, `make lab-down`; docs/lab.md says more."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    runpy.run_module("support.lab.by_hand", run_name="__main__")
