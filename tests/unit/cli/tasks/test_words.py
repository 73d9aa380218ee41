"""Mounts and variables as Docker's command line writes them."""

import os
from pathlib import Path

import pytest

from kohakuriver.cli.params import read_mount
from kohakuriver.cli.tasks.environment_words import read_file, read_variable, variables_of
from kohakuriver.models.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/a:/b", "/a:/b"),
        ("/a:/b:ro", "/a:/b:ro"),
        ("/a:/b:rw", "/a:/b"),
        ("/a:/b:ro,cached", "/a:/b:ro"),
        ("/a:/b:delegated", "/a:/b"),
        ("./a:/b", f"{os.getcwd()}/a:/b"),
        ("..:/b:ro", f"{os.path.dirname(os.getcwd())}:/b:ro"),
    ],
)
def test_mounts_are_read_as_docker_does(text: str, read: str) -> None:
    assert read_mount(text) == read


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("data:/b", "volume"),
        ("/a", "form"),
        ("/a:", "form"),
        (":/b", "form"),
        ("/a:/b:ro:x", "form"),
        ("/a:/b:z", "ro or rw"),
        ("/a:/b:ro,rw", "ro or rw"),
        ("/a:b", "absolute"),
        ("/a:/proc", "system"),
        ("/a,b:/c", "comma"),
    ],
)
def test_what_nodes_have_not_is_refused_by_name(text: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        read_mount(text)


def test_a_name_alone_stands_for_its_value_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "a=b")
    monkeypatch.delenv("GONE", raising=False)
    assert read_variable("HERE") == ("HERE", "a=b")
    assert read_variable("GONE") == ("GONE", None)
    assert read_variable("EMPTY=") == ("EMPTY", "")
    with pytest.raises(InvalidInput, match="environment variable"):
        read_variable("=x")


def test_a_file_has_one_variable_a_line_and_options_come_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "from here")
    file = tmp_path / "variables"
    file.write_bytes(b"# note\r\nA=1\r\n\n  B='quoted' # no note\nHERE\nGONE_1\nA=2\n")
    read = read_file(str(file))
    options = {"env_file": (read,), "env": (("B", "wins"),)}
    assert variables_of(options) == {"A": "2", "B": "wins", "HERE": "from here"}
    assert dict(read)["B"] == "'quoted' # no note"


@pytest.mark.parametrize(
    ("content", "word"), [(b"A B=1", "environment variable"), (b"\xff=1", "UTF-8"), (None, "No such file")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, word: str) -> None:
    file = tmp_path / "variables"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=word) as refused:
        read_file(str(file))
    assert str(file) in str(refused.value)
