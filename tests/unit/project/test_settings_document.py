"""Templates load to the defaults; the tables of docs/settings.md are those of the source."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.config import (
    HOST,
    RUNNER,
    HostConfig,
    Program,
    RunnerConfig,
    load,
    load_runner_config,
    render_template,
    write_config_file,
)
from kohakuriver.config.reference import with_tables
from kohakuriver.models.enums import LogLevel
from kohakuriver.models.errors import Conflict
from support.cluster.config_files import write_config

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("program", [RUNNER, HOST], ids=["runner", "host"])
def test_template_loads_to_exactly_the_defaults(tmp_path: Path, program: Program[Any]) -> None:
    path = write_config(tmp_path, render_template(program))
    loaded = load(program, path)
    defaults = load(program, write_config(tmp_path, "", "empty.py"))
    assert loaded.warnings == ()
    assert [(row.value, row.text) for row in loaded.settings] == [
        (row.value, row.text) for row in defaults.settings
    ]
    assert all(row.source.startswith(f"{path}:") for row in loaded.settings)


def test_templates_make_the_default_objects(tmp_path: Path) -> None:
    assert load_runner_config(write_config(tmp_path, render_template(RUNNER))) == RunnerConfig()
    text = render_template(HOST, {"DB_FILE": f"{tmp_path}/db"})
    assert load(HOST, write_config(tmp_path, text)).config() == HostConfig(db_file=f"{tmp_path}/db")


@pytest.mark.parametrize("program", [RUNNER, HOST], ids=["runner", "host"])
def test_template_says_a_line_on_each_setting(program: Program[Any]) -> None:
    lines = render_template(program).splitlines()
    for setting in program.settings:
        (number,) = (n for n, line in enumerate(lines) if line.startswith(f"{setting.name}: "))
        assert lines[number - 1] == f"# {setting.description}."


def test_template_with_other_values_loads_to_them(tmp_path: Path) -> None:
    strange = '/tmp/it\'s "quoted" \\ ünd so'
    values = {"VM_IMAGES_DIR": strange, "ADDITIONAL_MOUNTS": ["/tmp:/x"], "LOG_LEVEL": LogLevel.FULL}
    config = load_runner_config(write_config(tmp_path, render_template(RUNNER, values)))
    assert config == RunnerConfig(
        vm_images_dir=strange, additional_mounts=("/tmp:/x",), log_level=LogLevel.FULL
    )
    with pytest.raises(KeyError, match="NO_SETTING"):
        render_template(RUNNER, {"NO_SETTING": 1})


def test_written_file_is_its_owners_alone_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runner_config.py"
    write_config_file(path, "one")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Conflict, match="--force"):
        write_config_file(path, "two")
    assert path.read_text() == "one"
    write_config_file(path, "two", force=True)
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["runner_config.py"]


def test_documented_tables_are_those_of_the_source() -> None:
    document = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for setting in (*RUNNER.settings, *HOST.settings):
        assert f"| `{setting.name}` |" in document
    assert document == with_tables(document), "run: python -m kohakuriver.config.reference docs/settings.md"


def test_client_settings_without_a_file_cost_little(tmp_path: Path) -> None:
    """The command line reads them in every call."""
    code = (
        "import sys; from kohakuriver.config import load_client_config; load_client_config();"
        "print(*{'kohakuengine', 'kohakuriver.config.runner', 'logging'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""
