"""What a runner checks and makes before it serves: its folders, its user, its lock, its port."""

import asyncio
import os
import pwd
import signal
import socket
import stat
from pathlib import Path

import pytest

from kohakuriver.config import RunnerConfig
from kohakuriver.models.errors import Conflict, InvalidInput, Unavailable
from kohakuriver.runner import app
from kohakuriver.runner.app import run_runner
from kohakuriver.runner.state_dir import StateDir, state_path
from kohakuriver.runner.tasks_user import tasks_user
from support.scripted_host import free_port


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


def config_in(folder: Path, port: int) -> RunnerConfig:
    return RunnerConfig(
        runner_bind_ip="127.0.0.1",
        runner_port=port,
        host_port=free_port(),
        shared_dir=str(folder / "shared"),
        local_temp_dir=str(folder / "made" / "temp"),
    )


def test_the_state_folder_is_private_and_of_one_runner(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    first = StateDir.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(Conflict, match="another runner uses"):
        StateDir.open(path)
    first.close()
    StateDir.open(path).close()


def test_state_of_two_nodes_with_one_home_is_apart() -> None:
    assert state_path("n1") != state_path("n2")
    assert state_path("n1").parent == state_path("n2").parent


def test_tasks_user_is_the_runners_own_or_the_named_one() -> None:
    own = tasks_user("")
    assert (own.uid, own.gid) == (os.getuid(), os.getgid())
    daemon = pwd.getpwnam("daemon")
    named = tasks_user("daemon")
    assert (named.uid, named.gid) == (daemon.pw_uid, daemon.pw_gid)
    assert daemon.pw_gid in named.groups
    with pytest.raises(InvalidInput, match="RUNNER_USER"):
        tasks_user("nobody-of-that-name")


def test_local_temp_is_made_open_to_all_with_logs_open_to_none(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "temp"
    app._prepare_local_temp(folder)
    app._prepare_local_temp(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "logs").stat().st_mode) == 0o700


def test_a_link_in_place_of_the_logs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").symlink_to("/etc")
    with pytest.raises(InvalidInput, match="is a link"):
        app._prepare_local_temp(tmp_path)


def test_a_taken_port_is_named_and_nothing_is_left_locked(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"{port}.*RUNNER_PORT"):
            asyncio.run(run_runner(config_in(tmp_path, port)))
    StateDir.open(state_path(socket.gethostname())).close()


def test_without_docker_and_host_it_stays_up_refuses_strangers_and_ends_on_sigterm(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        running = asyncio.ensure_future(run_runner(config_in(tmp_path, port)))
        async with asyncio.timeout(30):
            while not running.done():
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b" 401 " in await reader.readline()
                writer.close()
                break
            assert not running.done()
            began = asyncio.get_running_loop().time()
            os.kill(os.getpid(), signal.SIGTERM)
            await running
            assert asyncio.get_running_loop().time() - began < 5

    asyncio.run(scenario())
    assert (tmp_path / "made" / "temp").is_dir()
