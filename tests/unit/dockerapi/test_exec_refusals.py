"""What an engine refuses of an exec is told alike, in whichever of its calls it says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.exec_stream import ExecNotStarted, ExecOptions, ExecStream
from kohakuriver.models.errors import Conflict

pytestmark = pytest.mark.anyio

NO_USER = "unable to find user hugo: no matching entries in passwd file"
OPTIONS = ExecOptions(("true",), user="hugo")


@asynccontextmanager
async def engine(folder: Path, refused: str, status: int) -> AsyncIterator[DockerApi]:
    """One that answers all calls of an exec but the one that it refuses."""

    async def answer(request: web.Request) -> web.Response:
        call = request.path.rpartition("/")[2]
        if call == "version":
            return web.json_response({"ApiVersion": "1.51"})
        if call == refused:
            return web.json_response({"message": NO_USER}, status=status)
        return web.json_response({"Id": "e" * 64, "Running": False, "Pid": 0}, status=200)

    application = web.Application()
    application.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(folder / "engine.sock")).start()
        api = await DockerApi.connect(f"unix://{folder}/engine.sock")
        try:
            yield api
        finally:
            await api.close()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("refused", ["exec", "start"])
async def test_an_exec_that_is_refused_was_not_started(tmp_path: Path, refused: str, status: int) -> None:
    async with asyncio.timeout(20), engine(tmp_path, refused, status) as api:
        with pytest.raises(ExecNotStarted, match="unable to find user hugo"):
            await ExecStream.open(api, "c" * 64, OPTIONS)


@pytest.mark.parametrize("refused", ["exec", "start"])
async def test_a_container_that_does_not_run_is_another_matter(tmp_path: Path, refused: str) -> None:
    async with asyncio.timeout(20), engine(tmp_path, refused, 409) as api:
        with pytest.raises(Conflict):
            await ExecStream.open(api, "c" * 64, OPTIONS)
