"""What tests look up about environment containers."""

import asyncio
import subprocess
from collections.abc import Callable

from kohakuriver.host.environments.service import EnvironmentService


def run_in(container: str, script: str) -> str:
    command = ["docker", "exec", container, "sh", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def status_of(service: EnvironmentService, name: str) -> str | None:
    return next((row.status for row in await service.list_containers() if row.name == name), None)


async def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
