"""Log lines: what they hold, where they go, and that no secret is among it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kohakuriver import logging_setup
from kohakuriver.logging_setup import set_up_logging
from kohakuriver.models.enums import LogLevel
from kohakuriver.wire.trust.enrolment import JoinToken
from kohakuriver.wire.trust.identity import Identity
from kohakuriver.wire.trust.signing import Stamp, sign

TOKEN = JoinToken.generate(Identity.generate().fingerprint).format()
CREDENTIAL = sign(b"k", "n1", Stamp("e" * 22, "s" * 22, 1), "GET", "/", b"")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_has_the_event_its_fields_level_and_time_on_console_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "runner.log"
    set_up_logging(LogLevel.INFO, str(file))
    structlog.get_logger("x").info("attempt_started", task_id="7", attempt=1)
    logging.getLogger("y").warning("from %s", "stdlib")
    ours, theirs = lines_of(file)
    assert (ours["event"], ours["task_id"], ours["attempt"], ours["level"]) == (
        "attempt_started",
        "7",
        1,
        "info",
    )
    assert ours["timestamp"].endswith("Z")
    assert theirs["event"] == "from stdlib"
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    for line in (ours, theirs, *shown):
        del line["timestamp"]
    assert shown == [ours, theirs]


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        (LogLevel.FULL, ["debug", "info", "warning"]),
        (LogLevel.DEBUG, ["debug", "info", "warning"]),
        (LogLevel.INFO, ["info", "warning"]),
        (LogLevel.WARNING, ["warning"]),
    ],
)
def test_the_level_decides_what_is_written(tmp_path: Path, level: LogLevel, seen: list[str]) -> None:
    file = tmp_path / "log"
    set_up_logging(level, str(file))
    log = structlog.get_logger("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert [line["level"] for line in lines_of(file)] == seen


def test_the_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging_setup, "ROTATE_BYTES", 2000)
    file = tmp_path / "log"
    set_up_logging(LogLevel.INFO, str(file))
    for number in range(200):
        structlog.get_logger("x").info("line", number=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", *(f"log.{n}" for n in range(1, 6))]
    assert file.stat().st_size <= 2000


def _fail(depth: int) -> None:
    node_name, secret_key, env_vars, attempt = "n1", "canary-1", {"A": "canary-2"}, depth
    value = "canary-3"
    if depth == 0:
        raise ValueError(f"broke on {node_name} with {TOKEN}")
    _fail(depth - 1)
    raise AssertionError([secret_key, env_vars, attempt, value])


@pytest.mark.parametrize("level", list(LogLevel))
def test_tracebacks_carry_values_at_full_alone_and_never_secrets(tmp_path: Path, level: LogLevel) -> None:
    file = tmp_path / "log"
    set_up_logging(level, str(file))
    try:
        _fail(1)
    except ValueError:
        structlog.get_logger("x").exception("request_failed")
        logging.getLogger("y").exception("again")
    for line in lines_of(file):
        assert "ValueError: broke on n1" in line["exception"]
        assert ("node_name = 'n1'" in line["exception"]) is (level is LogLevel.FULL)
    assert "canary" not in file.read_text()
    assert TOKEN not in file.read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {"join_token": TOKEN},
        {"reason": f"host refused {TOKEN}"},
        {"headers": {"Authorization": CREDENTIAL}},
        {"reason": f"sent Authorization: {CREDENTIAL}"},
        {"detail": ["Bearer abcdef-canary", {"password": "canary"}]},
        {"env_vars": {"A": "canary"}},
        {"url": "https://user:canary@registry/x"},
        {"error": ValueError("Bearer canary")},
    ],
)
def test_secrets_in_fields_are_hidden(tmp_path: Path, fields: dict[str, Any]) -> None:
    file = tmp_path / "log"
    set_up_logging(LogLevel.DEBUG, str(file))
    structlog.get_logger("x").warning("event", **fields)
    text = file.read_text()
    for secret in ("canary", TOKEN, TOKEN.split(".")[2], CREDENTIAL.rsplit(":", 1)[1]):
        assert secret not in text


def test_a_line_cannot_be_forged_by_a_newline(tmp_path: Path) -> None:
    file = tmp_path / "log"
    set_up_logging(LogLevel.INFO, str(file))
    structlog.get_logger("x").info("event", name='a\n{"event": "forged"}\x1b[31m')
    assert len(file.read_text().splitlines()) == 1
    assert "\x1b" not in file.read_text()
