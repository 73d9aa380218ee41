"""Scores for the kernel's choice when memory runs out: the daemons' own, and of what they start."""

import subprocess
from pathlib import Path

import pytest

from kohakuriver.oom_score import DAEMON_SCORE_ADJ, expendable, protect_this_process


@pytest.mark.parametrize(("before", "after"), [("0\n", "-500"), ("300\n", "-500"), ("-900\n", "-900\n")])
def test_a_daemon_takes_a_low_score_and_keeps_a_lower_one(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "score").write_text(before)
    protect_this_process(tmp_path / "score")
    assert (tmp_path / "score").read_text() == after
    assert int(after) <= DAEMON_SCORE_ADJ


def test_a_daemon_without_the_right_or_the_file_goes_on(tmp_path: Path) -> None:
    protect_this_process(tmp_path / "none")
    protect_this_process(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("before", "after"), [("-500\n", "0\n"), ("0\n", "0\n"), ("300\n", "300\n")])
def test_what_a_daemon_starts_has_not_its_protection(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "a score"
    path.write_text(before)
    words = ("a b", "$HOME", ";exit 9", "", "*")
    ended = subprocess.run(
        expendable("printf", "<%s>", *words, path=path), capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("".join(f"<{word}>" for word in words), "")
    assert path.read_text() == after


def test_a_program_is_started_where_scores_cannot_be_changed(tmp_path: Path) -> None:
    ended = subprocess.run(
        expendable("sh", "-c", "exit 5", path=tmp_path / "none"), capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (5, b"")
