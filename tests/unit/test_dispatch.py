"""The host dials nodes where it has seen them, whatever they say of themselves."""

import pytest

from kohakuriver.host.dispatch.runner_link import dial_url


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        ("http://node:8001", "http://192.0.2.7:8001"),
        ("http://127.0.0.1:9000/", "http://192.0.2.7:9000"),
        ("http://169.254.169.254:80", "http://192.0.2.7:80"),
        ("http://[::1]:8001", "http://192.0.2.7:8001"),
        ("http://node:8001@evil:1/x", "http://192.0.2.7:8001"),
        ("unix:///run/docker.sock", "http://192.0.2.7:8001"),
        ("http://node", "http://192.0.2.7:8001"),
    ],
)
def test_only_the_port_is_taken_from_what_a_node_announces(announced: str, expected: str) -> None:
    assert dial_url("192.0.2.7", announced) == expected


def test_an_address_of_version_6_is_bracketed() -> None:
    assert dial_url("2001:db8::1", "http://node:8001") == "http://[2001:db8::1]:8001"
