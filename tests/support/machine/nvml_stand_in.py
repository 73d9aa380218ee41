"""Builds the NVML stand-in, so that the real `pynvml` can be tested on a machine without a GPU.

`env = environment(cache_dir, json_path)` gives the two variables that a program needs to see the GPUs that
`write_gpus(json_path, …)` describes; the file may change while the program runs.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("nvml") / "nvml_stand_in.c"


def build(cache_dir: Path) -> Path:
    """Return a folder that holds `libnvidia-ml.so.1`; compiled once for each version of the source."""
    folder = cache_dir / f"nvml-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}"
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"draft-{os.getpid()}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(draft), str(_SOURCE)],
            check=True,
        )
        draft.rename(library)
    return folder


def gpu(index: int, **changes: Any) -> dict[str, Any]:
    """One card in the stand-in's words; a change to None takes the figure away (not supported)."""
    facts = {
        "uuid": f"GPU-00000000-0000-0000-0000-{index:012d}",
        "name": "Stand-in GPU",
        "memory_total_bytes": 24 << 30,
        "memory_used_bytes": 1 << 30,
        "utilization": 10 + index,
        "temperature": 40 + index,
        "power_milliwatts": 50_500,
        "memory_utilization": 20,
        "graphics_clock": 1500,
        "memory_clock": 5000,
        "fan_percent": 30,
        "power_limit_milliwatts": 300_000,
        "pci_bus_id": f"00000000:{index + 1:02X}:00.0",
        "numa_node": 0,
    } | changes
    return {key: value for key, value in facts.items() if value is not None}


def write_gpus(json_path: Path, *gpus: dict[str, Any], error: int = 0) -> None:
    """Put the cards there at once, never half; `error` makes every call fail with that NVML status."""
    document = {"driver_version": "550.54.15", "gpus": list(gpus), "error": error}
    draft = json_path.with_name(json_path.name + ".draft")
    draft.write_text(json.dumps(document))
    draft.rename(json_path)


def environment(cache_dir: Path, json_path: Path) -> dict[str, str]:
    """Variables to add to the environment of a program that is to find the cards."""
    known = os.environ.get("LD_LIBRARY_PATH")
    folder = str(build(cache_dir))
    return {
        "LD_LIBRARY_PATH": f"{folder}:{known}" if known else folder,
        "NVML_STAND_IN_JSON": str(json_path),
    }
