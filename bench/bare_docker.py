"""What the bare Docker API takes for the same work, on a bridge network: the yardstick of the others."""

import asyncio
import time

from kohakuriver.dockerapi.client import DockerApi

_CONFIG = {"Entrypoint": ["true"], "Cmd": [], "HostConfig": {"NetworkMode": "bridge"}}


async def run_one(api: DockerApi, image: str) -> float:
    """Create, start, wait for and delete one container; returns seconds."""
    began = time.perf_counter()
    created = await api.json("POST", "containers/create", json={**_CONFIG, "Image": image})
    container = f"containers/{created['Id']}"
    await api.json("POST", f"{container}/start")
    await api.json("POST", f"{container}/wait")
    await api.json("DELETE", container)
    return time.perf_counter() - began


async def rate(api: DockerApi, image: str, count: int, at_once: int) -> float:
    """Containers per second with so many under way at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            await run_one(api, image)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return count / (time.perf_counter() - began)
