"""The small disks of a lab, which can be filled up and emptied; found again by the name of their source.

Not by where they are mounted: a folder of an old test run is renamed by whoever throws it away.
"""

import subprocess
from pathlib import Path

from support.machine.small_disk import SmallDisk


def mount_disk(folder: Path, size_mib: int, source: str) -> SmallDisk:
    """Mount a file system in memory on the folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mib}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, source, str(folder)], check=True)
    return SmallDisk(folder)


def mounts_from(source: str) -> list[str]:
    """Where that source is mounted, as this process sees it."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [line[1].encode().decode("unicode_escape") for line in lines if line[0] == source]
