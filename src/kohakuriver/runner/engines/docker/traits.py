# shape: the one place where the engine is asked what it can do
"""What the engine can do, read once when it is opened."""

import asyncio
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.runner.engines.docker.user_mapping import UserMapping
from kohakuriver.runner.engines.docker.workloads.body import EngineTraits

_CDI_NVIDIA = "nvidia.com/gpu"


async def read_traits(api: DockerApi) -> tuple[EngineTraits, Path]:
    """Return the traits and the engine's data directory."""
    info = await api.json("GET", "info")
    folders = [Path(folder) for folder in info.get("CDISpecDirs") or ()]
    traits = EngineTraits(
        knows_cdi_nvidia=await asyncio.to_thread(_has_nvidia_spec, folders),
        has_nvidia_runtime="nvidia" in (info.get("Runtimes") or {}),
        maps_users=UserMapping.of(info).root is not None,
    )
    return traits, Path(info["DockerRootDir"])


def _has_nvidia_spec(folders: list[Path]) -> bool:
    """The engine names the folders of device descriptions; whether NVIDIA's is among them, the files tell."""
    for folder in folders:
        for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.yaml")):
            try:
                if _CDI_NVIDIA in path.read_text(errors="replace"):
                    return True
            except OSError:
                continue  # a folder that we may not read does not serve the engine's devices either
    return False
