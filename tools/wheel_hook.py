"""A wheel holds the tunnel clients of all architectures, built of these sources, or it is not built."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tools.tunnel_client import missing_of  # noqa: E402 - found once the path is set


class WheelHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del build_data
        if version == "editable":
            # Its client is found in the checkout, where tools/setup.sh has built this machine's.
            return
        if missing := missing_of(Path(self.root)):
            self.app.abort(
                f"tunnel clients are missing, or of other sources: {', '.join(missing)}. Before a wheel is "
                "built, run tools/setup.sh and .venv/bin/python tools/tunnel_client.py build --all"
            )
