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
from kohakuriver.node_folders import runner_folders
from kohakuriver.runner import settings_of_parts
from kohakuriver.runner.app import run_runner
from kohakuriver.runner.local_temp import data_folder, prepare_local_temp
from kohakuriver.runner.state_dir import StateDir
from kohakuriver.runner.tasks_user import tasks_user
from support.runner.scripted_host import free_port


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


def test_tasks_user_is_the_runners_own_or_the_named_one() -> None:
    own = tasks_user("")
    assert (own.uid, own.gid) == (os.getuid(), os.getgid())
    daemon = pwd.getpwnam("daemon")
    named = tasks_user("daemon")
    assert (named.uid, named.gid) == (daemon.pw_uid, daemon.pw_gid)
    assert daemon.pw_gid in named.groups
    with pytest.raises(InvalidInput, match="RUNNER_USER"):
        tasks_user("nobody-of-that-name")


def test_beside_gpus_tasks_may_lock_as_much_memory_as_this_runner_can_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_of_parts, "locked_memory_limit", lambda: 4096)
    assert settings_of_parts.task_settings(config_in(tmp_path, 1)).memlock_bytes == 4096


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_local_temp_opens_to_workloads_and_to_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "temp"
    for _ in range(2):
        prepare_local_temp(folder)
        assert _mode(folder) == 0o711
        assert _mode(folder / "logs") == _mode(folder / "workloads") == 0o700
        assert _mode(data_folder(folder)) == 0o1777


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o2750])
def test_a_local_temp_that_is_there_keeps_its_mode_and_what_is_in_it(tmp_path: Path, mode: int) -> None:
    (tmp_path / "of-somebody").write_text("stays")
    tmp_path.chmod(mode)
    prepare_local_temp(tmp_path)
    assert _mode(tmp_path) == mode
    assert (tmp_path / "of-somebody").read_text() == "stays"
    assert list(data_folder(tmp_path).iterdir()) == []


@pytest.mark.parametrize("name", ["logs", "workloads", "workloads/data"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_in_local_temp_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "etc").mkdir(mode=0o755)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if kind == "link":
        (tmp_path / name).symlink_to(tmp_path / "etc")
    else:
        (tmp_path / name).touch()
    with pytest.raises(InvalidInput, match="LOCAL_TEMP_DIR"):
        prepare_local_temp(tmp_path)
    assert _mode(tmp_path / "etc") == 0o755
    assert list((tmp_path / "etc").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to other users")
def test_a_local_temp_that_others_can_change_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "temp"
    folder.mkdir()
    for mode, owner, group in ((0o777, 0, 0), (0o775, 0, 65534), (0o755, 65534, 0)):
        os.chown(folder, owner, group)
        folder.chmod(mode)
        with pytest.raises(InvalidInput, match="LOCAL_TEMP_DIR"):
            prepare_local_temp(folder)
        assert list(folder.iterdir()) == []
    os.chown(folder, 0, 0)
    for name in ("logs", "workloads"):
        (folder / name).mkdir()
        os.chown(folder / name, 65534, 0)
        with pytest.raises(InvalidInput, match="another user"):
            prepare_local_temp(folder)
        (folder / name).rmdir()


def test_a_taken_port_is_named_and_nothing_is_left_locked(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"{port}.*RUNNER_PORT"):
            asyncio.run(run_runner(config_in(tmp_path, port)))
    StateDir.open(runner_folders() / socket.gethostname()).close()


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
