"""The host's side of shared storage: its folders, and the marker by which runners know it.

The marker is a file with the cluster's id. One of another cluster is never overwritten: two clusters in one
folder would mix up each other's logs and environments.
"""

import os
from dataclasses import dataclass
from pathlib import Path

MARKER = ".kohakuriver-cluster"


@dataclass(frozen=True, slots=True)
class SharedStorage:
    """Result of looking at the folder: usable, or a sentence that says why it is not."""

    directory: Path
    fault: str | None


def prepare_shared_storage(directory: Path, cluster_id: str) -> SharedStorage:
    """Make the folders and the marker where they are missing; blocking, run once at start."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        marker = directory / MARKER
        found = marker.read_text().strip() if marker.exists() else None
        if found is None:
            _write_marker(marker, cluster_id)
        elif found != cluster_id:
            return SharedStorage(directory, f"{directory} belongs to another cluster ({found[:80]})")
        shared_data = directory / "shared_data"
        if not shared_data.exists():
            shared_data.mkdir()
            shared_data.chmod(0o1777)
        logs = directory / "logs"
        logs.mkdir(mode=0o750, exist_ok=True)
        for folder in (shared_data, logs):
            if folder.is_symlink():
                return SharedStorage(
                    directory, f"{folder} is a link, which is not followed; put a folder or a mount there"
                )
    except OSError as error:
        return SharedStorage(directory, f"SHARED_DIR {directory} cannot be used: {error.strerror or error}")
    return SharedStorage(directory, None)


def is_this_clusters(directory: Path, cluster_id: str) -> bool:
    """Whether the folder is there now, and has the marker of this cluster; blocking."""
    try:
        return (directory / MARKER).read_text().strip() == cluster_id
    except OSError:
        return False


def _write_marker(marker: Path, cluster_id: str) -> None:
    draft = marker.with_name(f"{marker.name}.{os.getpid()}")
    draft.write_text(cluster_id + "\n")
    draft.replace(marker)
