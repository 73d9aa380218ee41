"""The runner's configuration document, kept beside this file word for word, against the settings in force."""

import ast
import os
import re
from pathlib import Path

import pytest

from kohakuriver.config import RUNNER, RunnerConfig, load_runner_config
from kohakuriver.models.enums import LogLevel
from support.cluster.config_files import write_config

DOCUMENT = (Path(__file__).parent / "runner-configuration.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([A-Z_]+)` +\| ([^|]+?) +\| `([^`]*)` +\|", DOCUMENT, re.MULTILINE)
OURS = {
    "SANDBOX_POOL_SIZE": ("int", 2),
    "HOST_FINGERPRINT": ("str", ""),
    "LOCAL_IMAGES": ("list[str]", ()),
    "TASK_PIDS_LIMIT": ("int", 4096),
    "DEFAULT_MEMORY_LIMIT": ("float", 0.9),
    "WORKLOAD_EGRESS_DENY": ("list[str]", ("metadata", "control")),
    "JOIN_TOKEN": ("str", ""),
}


def example() -> str:
    block = re.search(r"## Example Configuration\s+```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    return block[1]


def documented_default(text: str) -> object:
    return LogLevel.INFO if text == "LogLevel.INFO" else ast.literal_eval(text)


def test_document_is_read_whole() -> None:
    assert len(ROWS) == 42


def test_settings_are_those_of_the_document_and_ours_alone() -> None:
    assert {setting.name for setting in RUNNER.settings} == {row[0] for row in ROWS} | OURS.keys()


@pytest.mark.parametrize(("name", "type_name", "default"), ROWS, ids=[row[0] for row in ROWS])
def test_setting_has_the_type_and_default_of_the_document(name: str, type_name: str, default: str) -> None:
    (setting,) = (setting for setting in RUNNER.settings if setting.name == name)
    kept = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    assert setting.type_name == type_name
    assert kept == documented_default(default)
    assert type(kept) is type(documented_default(default))


@pytest.mark.parametrize("name", OURS)
def test_setting_of_ours_has_its_default(name: str) -> None:
    (setting,) = (setting for setting in RUNNER.settings if setting.name == name)
    assert (setting.type_name, setting.default) == OURS[name]


def test_example_loads_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks of the machine is that `/data` exists, which is granted here."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/data" or exists(path))
    config = load_runner_config(write_config(tmp_path, example()))
    assert config == RunnerConfig(host_address="192.168.1.100", additional_mounts=("/data:/data",))
    assert config.host_url == "http://192.168.1.100:8000"
