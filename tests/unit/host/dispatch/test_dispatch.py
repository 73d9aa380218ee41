"""The host dials nodes where it has seen them, whatever they say of themselves."""

import pytest

from kohakuriver.host.dispatch.runner_link import dial_url
from kohakuriver.models.errors import Unavailable


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        ("http://node:8001", "http://192.0.2.7:8001"),
        ("http://127.0.0.1:9000/", "http://192.0.2.7:9000"),
        ("http://169.254.169.254:80", "http://192.0.2.7:80"),
        ("http://[::1]:8001", "http://192.0.2.7:8001"),
        ("http://node:65535", "http://192.0.2.7:65535"),
        ("http://node", "http://192.0.2.7:8001"),
    ],
)
def test_only_the_port_is_taken_from_what_a_node_announces(announced: str, expected: str) -> None:
    assert dial_url("192.0.2.7", announced) == expected


def test_an_address_of_version_6_is_bracketed() -> None:
    assert dial_url("2001:db8::1", "http://node:8001") == "http://[2001:db8::1]:8001"


@pytest.mark.parametrize(
    "announced",
    [
        "http://node:0",
        "http://node:65536",
        "http://node:99999",
        "http://node:8001@evil:1/x",
        "unix:///run/docker.sock",
        "http://node:8001/" + "x" * 400,
    ],
)
def test_what_is_no_url_of_a_node_is_refused_by_a_sentence(announced: str) -> None:
    with pytest.raises(Unavailable, match="port"):
        dial_url("192.0.2.7", announced)
