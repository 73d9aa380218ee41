"""`kohakuriver init` and `kohakuriver config`, as the command line runs them."""

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kohakuriver.cli.config import config_group
from kohakuriver.cli.local.init import init_group
from kohakuriver.cli.local.service import _quoted, unit_for
from kohakuriver.config import RUNNER, RunnerConfig, load_runner_config
from kohakuriver.models.errors import Denied
from kohakuriver.oom_score import DAEMON_SCORE_ADJ
from support.cluster.config_files import write_config

PROGRAM = (
    "import sys, click; from kohakuriver.cli.boundary import run_guarded;"
    "from kohakuriver.cli.config import config_group; from kohakuriver.cli.local.init import init_group;"
    "root = click.Group('kohakuriver', commands=[config_group, init_group]);"
    "sys.exit(run_guarded(root, 'kohakuriver'))"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("HOST", "PORT", "SSH_PROXY_PORT", "TOKEN"):
        monkeypatch.delenv(f"KOHAKURIVER_{name}", raising=False)
    return folder


def call(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_groups_have_the_names_that_the_command_line_gives_them() -> None:
    assert (init_group.name, config_group.name) == ("init", "config")


def test_init_config_writes_where_the_daemons_look(home: Path) -> None:
    answer = call("init", "config", "--runner", "--host")
    folder = home / ".kohakuriver"
    assert answer.stdout.splitlines() == [f"{folder}/runner_config.py", f"{folder}/host_config.py"]
    assert load_runner_config() == RunnerConfig()
    (folder / "runner_config.py").write_text("RUNNER_PORT = 9001")
    refused = call("init", "config", "--runner")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert load_runner_config().runner_port == 9001
    assert call("init", "config", "--runner", "--force").returncode == 0
    assert load_runner_config().runner_port == 8001


def test_init_config_writes_where_it_is_told(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "x" / "mine.py"
    assert call("init", "config", "--runner", "--output", str(path)).returncode == 0
    assert load_runner_config(path) == RunnerConfig()
    assert call("init", "config", "--runner", "--output", "-").stdout == path.read_text()
    assert list(home.iterdir()) == []
    assert call("init", "config", "--runner", "--host", "--output", str(path)).returncode == 2
    assert call("init", "config").returncode == 2
    unwritable = call("init", "config", "--runner", "--output", "/proc/nothing/x.py")
    assert (unwritable.returncode, len(unwritable.stderr.splitlines())) == (1, 1)


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_units_name_the_installed_programs_and_the_configuration(home: Path) -> None:
    assert "--config" not in unit(unit_for("runner"))["Service"]["ExecStart"]
    call("init", "config", "--runner", "--host")
    for name in ("host", "runner"):
        program, option, config = unit(unit_for(name))["Service"]["ExecStart"].split()
        assert Path(program) == Path(sys.executable).parent / f"kohakuriver.{name}"
        assert (option, config) == ("--config", f"{home}/.kohakuriver/{name}_config.py")


def test_units_keep_workloads_and_do_not_repeat_a_faulty_configuration(home: Path) -> None:
    runner, host = unit(unit_for("runner"))["Service"], unit(unit_for("host"))["Service"]
    for service in (runner, host):
        assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "78")
        assert service["OOMScoreAdjust"] == str(DAEMON_SCORE_ADJ)
    assert runner["KillMode"] == "process"
    assert "KillMode" not in host


def test_init_service_prints_or_writes(home: Path, tmp_path: Path) -> None:
    printed = call("init", "service", "--all")
    assert printed.stdout == f"{unit_for('host')}\n{unit_for('runner')}"
    folder = tmp_path / "units"
    assert call("init", "service", "--all", "--output", str(folder)).returncode == 0
    assert (folder / "kohakuriver-runner.service").read_text() == unit_for("runner")
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "kohakuriver-host.service",
        "kohakuriver-runner.service",
    ]
    assert call("init", "service", "--runner", "--output", str(folder)).returncode == 1
    assert call("init", "service", "--runner", "--force", "--output", str(folder)).returncode == 0
    assert call("init", "service").returncode == 2


@pytest.mark.parametrize(
    ("word", "written"),
    [("/plain/path", "/plain/path"), ("/a b", '"/a b"'), ("/100%$x", "/100%%$$x"), ('/a"b', '"/a\\"b"')],
)
def test_paths_in_units_are_quoted_for_systemd(word: str, written: str) -> None:
    assert _quoted(word) == written


def test_config_show_prints_values_and_sources(home: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, "RUNNER_PORT = 9001\nADDITIONAL_MOUNTS = ['/tmp:/x']\n")
    table = call("config", "show", "--runner", "--config", str(path)).stdout.splitlines()
    assert ["RUNNER_PORT", "9001", f"{path}:1"] in [line.split() for line in table]
    assert ["HOST_PORT", "8000", "default"] in [line.split() for line in table]
    rows = json.loads(call("config", "show", "--runner", "--config", str(path), "-o", "json").stdout)
    assert len(rows) == len(RUNNER.settings)
    assert {"setting": "RUNNER_PORT", "value": 9001, "source": f"{path}:1"} in rows
    assert {"setting": "ADDITIONAL_MOUNTS", "value": ["/tmp:/x"], "source": f"{path}:2"} in rows
    assert {"setting": "LOG_LEVEL", "value": "info", "source": "default"} in rows
    assert (
        yaml.safe_load(call("config", "show", "--runner", "--config", str(path), "-o", "yaml").stdout) == rows
    )


def test_config_show_of_a_faulty_file_shows_all_and_ends_with_78(home: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, "RUNNER_PORT = 0\nHOST_PORT = 'x'\nRACK = 7\nprint('hi')")
    answer = call("config", "show", "--runner", "--config", str(path), "-o", "json")
    assert answer.returncode == 78
    assert len(json.loads(answer.stdout)) == len(RUNNER.settings)
    assert [
        word for word in ("RUNNER_PORT = 0", "HOST_PORT = 'x'", "RACK is not") if word in answer.stderr
    ] == [
        "RUNNER_PORT = 0",
        "HOST_PORT = 'x'",
        "RACK is not",
    ]
    missing = call("config", "show", "--host", "--config", str(tmp_path / "missing.py"))
    assert (missing.returncode, missing.stdout) == (78, "")
    assert call("config", "show").returncode == 2


def test_config_show_hides_secrets(home: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, f"ADMIN_SECRET = 'canary-7'\nDB_FILE = '{tmp_path}/db'\n")
    for form in ("table", "json", "yaml"):
        answer = call("config", "show", "--host", "--config", str(path), "-o", form)
        assert answer.returncode == 0
        assert "ADMIN_SECRET" in answer.stdout
        assert "(hidden)" in answer.stdout
        assert "canary-7" not in answer.stdout + answer.stderr


def test_config_env_is_shell_that_sets_what_is_in_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("config", "env").stdout.splitlines() == [
        "export KOHAKURIVER_HOST=localhost",
        "export KOHAKURIVER_PORT=8000",
        "export KOHAKURIVER_SSH_PROXY_PORT=8002",
    ]
    (home / ".kohakuriver").mkdir()
    write_config(home / ".kohakuriver", "HOST = 'h'\nPORT = 9000\nTOKEN = \"it's\"", "cli_config.py")
    said = "$KOHAKURIVER_HOST $KOHAKURIVER_PORT $KOHAKURIVER_TOKEN"
    shell = subprocess.run(
        ["sh", "-c", f'eval "$1"; echo "{said}"', "sh", call("config", "env").stdout],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "h 9000 it's\n"
    monkeypatch.setenv("KOHAKURIVER_HOST", "elsewhere")
    lines = call("config", "env").stdout.splitlines()
    assert "export KOHAKURIVER_HOST=elsewhere" in lines
    assert not [line for line in lines if "TOKEN" in line], "the file's token is only for the file's host"


def test_faulty_client_configuration_ends_with_78(home: Path) -> None:
    (home / ".kohakuriver").mkdir()
    write_config(home / ".kohakuriver", "PORT = '9000'", "cli_config.py")
    answer = call("config", "env")
    assert (answer.returncode, answer.stdout) == (78, "")
    assert "PORT = '9000': expected int" in answer.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_asks_the_command_itself(home: Path, shell: str) -> None:
    answer = call("config", "completion", shell)
    assert answer.returncode == 0
    assert f"_KOHAKURIVER_COMPLETE={shell}_complete" in answer.stdout
    assert call("config", "completion", "csh").returncode == 2


def test_a_unit_of_a_runner_that_would_not_start_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Denied, match="runs as root"):
        unit_for("runner")
    assert "User=1000" in unit_for("host")
