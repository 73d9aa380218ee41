"""Whether the engine answers, asked again and again, so that its silence shows before somebody needs it."""

import asyncio

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import KohakuRiverError

INTERVAL_SECONDS = 3.0
# Starting many containers at once keeps a healthy engine busy for seconds.
PATIENCE_SECONDS = 10.0

_log = structlog.get_logger()


class EngineWatch:
    """Run it beside the rest; `fault` is a sentence while the engine does not answer."""

    def __init__(self, api: DockerApi) -> None:
        self.fault: str | None = None
        self._api = api

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self._take(await self._ask())
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._api.stream("GET", "_ping") as answer:
                await answer.read()
        except TimeoutError:
            return (
                f"the Docker engine at {self._api.url} has not answered for {PATIENCE_SECONDS:.0f} s; "
                "it hangs (systemctl status docker); work goes on once it answers"
            )
        except KohakuRiverError as error:
            return str(error)
        return None

    def _take(self, fault: str | None) -> None:
        if fault and self.fault is None:
            _log.error("engine_silent", error=fault)
        elif self.fault and fault is None:
            _log.info("engine_answers_again")
        self.fault = fault
