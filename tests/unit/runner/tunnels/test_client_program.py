"""Which program becomes the client of a node's sandboxes, and what is said of one that cannot be."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import kohakuriver
from kohakuriver.models.errors import InvalidInput
from kohakuriver.runner.engines.docker.sandboxes.image import find_pause_binary
from kohakuriver.runner.tunnels.client_program import SWITCHED_OFF, UnfitClient, find_client

SHIPPED = Path(kohakuriver.__file__).parent / "tunnel_clients" / f"tunnel-client-{platform.machine()}"
_BUILD = Path(__file__).parents[4] / "tools/tunnel_client.py"
_MACHINE_AT = 18
"""Where a program's file says of which machine it is."""


@pytest.fixture(scope="module")
def good() -> bytes:
    subprocess.run([sys.executable, _BUILD, "build"], check=True)
    return SHIPPED.read_bytes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node on which nothing is shipped or installed."""
    package = tmp_path / "package"
    (package / "tunnel_clients").mkdir(parents=True)
    monkeypatch.setattr(kohakuriver, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_shipped_one_comes_first_then_the_named_places(home: Path, good: bytes) -> None:
    shared = home / "share"
    last = put(shared / "bin/tunnel-client", good)
    assert find_client(True, "", shared).path == last
    own = put(home / "home/.kohakuriver/tunnel-client", good)
    assert find_client(True, "", shared).path == own
    shipped = put(home / "package/tunnel_clients" / SHIPPED.name, good)
    assert find_client(True, "", shared).path == shipped


def test_one_that_cannot_serve_is_passed_over(home: Path, good: bytes) -> None:
    put(home / "home/.kohakuriver/tunnel-client", b"#!/bin/sh\n")
    good_one = put(home / "share/bin/tunnel-client", good)
    assert find_client(True, "", home / "share").path == good_one


def test_the_chosen_one_is_used_and_nothing_else(home: Path, good: bytes) -> None:
    chosen = put(home / "mine", good)
    put(home / "home/.kohakuriver/tunnel-client", good)
    assert find_client(True, str(chosen), home).path == chosen


def test_where_there_is_none_the_reason_is_given(home: Path) -> None:
    found = find_client(True, "", home)
    assert found.path is None
    assert found.is_wanted
    assert platform.machine() in found.why_none


def test_switched_off_there_is_none_and_none_is_missed(home: Path, good: bytes) -> None:
    put(home / "home/.kohakuriver/tunnel-client", good)
    found = find_client(False, "", home)
    assert (found.path, found.why_none, found.is_wanted) == (None, SWITCHED_OFF, False)


def test_a_chosen_one_that_cannot_serve_is_refused_with_a_sentence(home: Path, good: bytes) -> None:
    foreign = bytearray(good)
    foreign[_MACHINE_AT] ^= 0xFF
    words = {
        b"#!/bin/sh\n": "is no static program",
        find_pause_binary().read_bytes(): "does not answer to --version",
        bytes(foreign): "does not run on this machine",
        good.replace(b"kohakuriver.tunnel.v2", b"kohakuriver.tunnel.v9"): "speaks kohakuriver.tunnel.v9",
    }
    for content, said in words.items():
        chosen = put(home / "mine", content)
        with pytest.raises(UnfitClient, match=said) as refused:
            find_client(True, str(chosen), home)
        assert str(chosen) in str(refused.value)
    with pytest.raises(InvalidInput, match="cannot be read"):
        find_client(True, str(home / "nowhere"), home)
