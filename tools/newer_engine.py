"""Runs tests against a newer Docker engine than the machine's: `make test-newer-engine`, docs/engines.md."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    runpy.run_module("support.engines.newer_engine", run_name="__main__")
