"""Files of settings: where they are found, how they run, and what becomes of one that fails."""

import os
import sys
from pathlib import Path

import pytest

from kohakuriver.config import (
    ClientConfig,
    ConfigFaults,
    HostConfig,
    RunnerConfig,
    load_client_config,
    load_host_config,
    load_runner_config,
)
from support.cluster.config_files import faults_of, write_config

pytestmark = pytest.mark.usefixtures("home")


# Where the file is


def test_without_a_file_all_defaults_count(tmp_path: Path) -> None:
    assert load_runner_config() == RunnerConfig()
    assert load_client_config() == ClientConfig()


def test_file_in_the_home_directory_is_found(home: Path) -> None:
    write_config(home / ".kohakuriver", "RUNNER_PORT = 9001", "runner_config.py")
    write_config(home / ".kohakuriver", f"HOST_PORT = 9000\nDB_FILE = '{home}/db'", "host_config.py")
    write_config(home / ".kohakuriver", "HOST = 'h'\nTOKEN = 't'", "cli_config.py")
    assert load_runner_config() == RunnerConfig(runner_port=9001)
    assert load_host_config() == HostConfig(host_port=9000, db_file=f"{home}/db")
    assert load_client_config() == ClientConfig(host="h", token="t")


def test_named_file_is_taken_instead(home: Path, tmp_path: Path) -> None:
    write_config(home / ".kohakuriver", "RUNNER_PORT = 9001", "runner_config.py")
    assert load_runner_config(write_config(tmp_path, "RUNNER_PORT = 9002")).runner_port == 9002


def test_named_file_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / "missing.py")
    assert fault == f"{tmp_path}/missing.py: expected a file that can be read (No such file or directory)"


def test_dangling_link_in_the_home_directory_is_no_missing_file(home: Path) -> None:
    (home / ".kohakuriver" / "runner_config.py").symlink_to("nowhere.py")
    with pytest.raises(ConfigFaults, match="No such file"):
        load_runner_config()


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    write_config(tmp_path, "RUNNER_PORT = 1", "runner.conf")
    assert "a regular file" in faults_of(tmp_path / "pipe.py")[0]
    assert "a regular file" in faults_of(tmp_path / "folder.py")[0]
    assert "ending in .py" in faults_of(tmp_path / "runner.conf")[0]


# How it runs


def test_variables_count_without_config_gen(tmp_path: Path) -> None:
    text = "import os\n_BASE = '/srv'\nSHARED_DIR = os.path.join(_BASE, 'share')\nRUNNER_PORT = 9000 + 1"
    assert load_runner_config(write_config(tmp_path, text)) == RunnerConfig(
        shared_dir="/srv/share", runner_port=9001
    )


def test_what_config_gen_returns_counts_alone(tmp_path: Path) -> None:
    text = (
        "from kohakuengine import Config\nRUNNER_PORT = 9001\n"
        "def config_gen():\n    return Config(globals_dict={'HOST_PORT': 9002})\n"
    )
    assert load_runner_config(write_config(tmp_path, text)) == RunnerConfig(host_port=9002)


def test_values_of_another_file_are_taken_over(tmp_path: Path) -> None:
    write_config(tmp_path, "HOST_PORT = 9000\nRUNNER_PORT = 1", "base.py")
    path = write_config(
        tmp_path, "from kohakuengine import use_config\nuse_config('base.py')\nRUNNER_PORT = 2"
    )
    assert load_runner_config(path) == RunnerConfig(host_port=9000, runner_port=2)


def test_values_come_from_the_environment_and_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rack_7.py").write_text("HOST_PORT = 9009\nRUNNERS_PORT = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SOME_HOST", "there")
    text = "import os\nfrom rack_7 import *\nHOST_ADDRESS = os.environ['SOME_HOST']"
    config = load_runner_config(write_config(tmp_path, text))
    assert (config.host_address, config.host_port) == ("there", 9009)


@pytest.mark.parametrize("directive", ["_sweep = {'RUNNER_PORT': [1, 2]}", "GENERATOR"])
def test_several_configurations_are_refused(tmp_path: Path, directive: str) -> None:
    generator = "from kohakuengine import Config\ndef config_gen():\n    yield Config()\n"
    path = write_config(tmp_path, directive.replace("GENERATOR", generator))
    assert faults_of(path) == [f"{path}: expected one configuration; a sweep or generator makes several"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("A = 1\nRUNNER_PORT = = 1\n", 2, "SyntaxError"),
        ("A = 1\n\nRUNNER_PORT = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("def f():\n    return [][1]\nRUNNER_PORT = f()", 2, "IndexError"),
        ("import no_such_module_here", 1, "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("import sys\nsys.exit(3)", 2, "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", 1, "ValueError: two"),
        ("def config_gen():\n    raise KeyError('x')", 2, "KeyError: 'x'"),
        ("def config_gen():\n    return 1", None, "must return Config"),
        ("RUNNER_PORT = 1\0", None, "null byte"),
        ("x = " + "(" * 300, 1, "SyntaxError"),
        ("import os\nRUNNER_PORT = int(os.environ['NO_SUCH_VARIABLE'])", 2, "KeyError"),
    ],
)
def test_file_that_fails_is_a_fault_with_its_line(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    path = write_config(tmp_path, text)
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}:{line}: expected" if line else f"{path}: expected")
    assert said in fault


def test_file_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    path = write_config(tmp_path, "")
    path.write_bytes(b"HOST_ADDRESS = '\xff'\n")
    assert len(faults_of(path)) == 1


@pytest.fixture
def bytecode_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does unless it is told otherwise."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.mark.usefixtures("bytecode_kept")
def test_changed_file_of_the_same_length_is_read_anew(tmp_path: Path) -> None:
    for port in range(9000, 9020):
        assert load_runner_config(write_config(tmp_path, f"RUNNER_PORT = {port}")).runner_port == port


@pytest.mark.usefixtures("bytecode_kept")
def test_loading_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    load_runner_config(write_config(folder, "LOCAL_TEMP_DIR = '/tmp/x/y'"))
    assert [entry.name for entry in folder.iterdir()] == ["some_config.py"]
    assert not sys.dont_write_bytecode


def test_what_the_file_prints_stays_off_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_runner_config(write_config(tmp_path, "print('hello')"))
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("value", ["os.getpid", "os", "int"])
def test_forgotten_call_does_not_turn_into_the_default(tmp_path: Path, value: str) -> None:
    path = write_config(tmp_path, f"import os\nRUNNER_PORT = {value}")
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}:2: RUNNER_PORT = <")
