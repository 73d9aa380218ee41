"""Which host is meant, and which token goes there: never one that does not belong to that host."""

import json
from pathlib import Path

import click
import pytest

from kohakuriver.cli.host_choice import HostChoice
from kohakuriver.client.connection.host_trust import FirstContact, KnownHost
from kohakuriver.models.errors import Denied

FINGERPRINT = "SHA256:" + "a" * 43
OTHER = "SHA256:" + "b" * 43


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HOST", "PORT", "TOKEN", "HOST_FINGERPRINT"):
        monkeypatch.delenv(f"KOHAKURIVER_{name}", raising=False)
    (tmp_path / ".kohakuriver").mkdir()
    return tmp_path / ".kohakuriver"


def leave_admin_token(home: Path, url: str = "http://127.0.0.1:8000") -> None:
    document = {"url": url, "token": "admin", "fingerprint": FINGERPRINT}
    (home / "admin_token.json").write_text(json.dumps(document))


def write_config(home: Path, text: str) -> None:
    path = home / "cli_config.py"
    path.write_text(text)
    path.chmod(0o600)


def test_options_win_over_environment_over_file_over_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HostChoice().access().url == "http://localhost:8000"
    write_config(home, 'HOST = "filed"\nPORT = 1\n')
    assert HostChoice().access().url == "http://filed:1"
    monkeypatch.setenv("KOHAKURIVER_HOST", "env")
    monkeypatch.setenv("KOHAKURIVER_PORT", "2")
    assert HostChoice().access().url == "http://env:2"
    assert HostChoice("option", 3).access().url == "http://option:3"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://h:9", "https://h:9"),
        ("http://h", "http://h:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
        ("10.0.0.1", "http://10.0.0.1:8000"),
    ],
)
def test_a_host_is_a_name_an_address_or_a_url(host: str, url: str) -> None:
    assert HostChoice(host).access().url == url


@pytest.mark.parametrize("host", ["http://h/path", "a b", "h:8000", "http://user:pw@h", "x\n"])
def test_what_is_no_host_is_a_wrong_use(host: str) -> None:
    with pytest.raises(click.UsageError):
        HostChoice(host).access()


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1"])
def test_a_port_of_the_environment_that_is_none_is_a_wrong_use(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOHAKURIVER_PORT", port)
    with pytest.raises(click.UsageError):
        HostChoice().access()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "http://localhost:8000"])
def test_the_token_of_this_machine_is_found_for_its_own_host(home: Path, host: str) -> None:
    leave_admin_token(home)
    assert HostChoice(host).access().token == "admin"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.org", 8000),
        ("10.0.0.1", 8000),
        ("localhost.example.org", 8000),
        ("127.0.0.1.example.org", 8000),
        ("127.0.0.1", 8001),
        ("http://evil:8000", None),
        ("::ffff:10.0.0.1", 8000),
    ],
)
def test_the_token_of_this_machine_goes_nowhere_else(home: Path, host: str, port: int | None) -> None:
    leave_admin_token(home)
    assert HostChoice(host, port).access().token is None


def test_a_token_file_that_names_a_foreign_host_is_not_used(home: Path) -> None:
    leave_admin_token(home, "http://evil:8000")
    assert HostChoice().access().token is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1, "token": 2}', '{"token": "x"}'])
def test_a_broken_token_file_is_as_good_as_none(home: Path, text: str) -> None:
    (home / "admin_token.json").write_text(text)
    assert HostChoice().access().token is None


def test_the_token_of_the_file_goes_to_the_host_of_the_file_alone(home: Path) -> None:
    write_config(home, 'HOST = "work"\nPORT = 8000\nTOKEN = "mine"\n')
    assert HostChoice().access().token == "mine"
    assert HostChoice("work").access().token == "mine"
    assert HostChoice("evil").access().token is None
    assert HostChoice("work", 9).access().token is None


def test_the_token_of_the_environment_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_admin_token(home)
    monkeypatch.setenv("KOHAKURIVER_TOKEN", "given")
    assert HostChoice().access().token == "given"
    assert HostChoice("elsewhere").access().token == "given"


def known(choice: HostChoice) -> str | None:
    """The fingerprint that the host is known by, None where the first contact counts."""
    trust = choice.access().trust
    return trust.fingerprint if isinstance(trust, KnownHost) else None


def test_the_fingerprint_is_the_one_of_this_call_else_of_the_file_else_of_this_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(HostChoice().access().trust, FirstContact)
    leave_admin_token(home)
    assert known(HostChoice()) == FINGERPRINT
    write_config(home, f"HOST_FINGERPRINT = {OTHER!r}\n")
    assert known(HostChoice()) == OTHER
    assert known(HostChoice("elsewhere")) is None, "the file's is only for the file's host"
    monkeypatch.setenv("KOHAKURIVER_HOST_FINGERPRINT", FINGERPRINT)
    assert known(HostChoice("elsewhere")) == FINGERPRINT
    assert known(HostChoice("elsewhere", None, OTHER)) == OTHER


def test_the_host_of_this_machine_is_reached_at_its_own_address(home: Path) -> None:
    leave_admin_token(home)
    for name in ("localhost", "::1", "127.0.0.2"):
        assert HostChoice(name).access().url == "http://127.0.0.1:8000"


def test_a_token_file_without_a_fingerprint_gives_no_token(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "admin_token.json").write_text(json.dumps({"url": "http://127.0.0.1:8000", "token": "admin"}))
    with pytest.raises(Denied, match="older version"):
        HostChoice().access()
    monkeypatch.setenv("KOHAKURIVER_HOST_FINGERPRINT", FINGERPRINT)
    assert (HostChoice().access().token, known(HostChoice())) == ("admin", FINGERPRINT)


def test_what_is_no_fingerprint_is_a_wrong_use(home: Path) -> None:
    with pytest.raises(click.UsageError, match="fingerprint"):
        HostChoice(fingerprint="SHA256:x").access()
