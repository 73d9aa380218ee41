"""What may be written as a port to forward, and what is meant by it."""

from typing import Any

import pytest

from kohakuriver.cli.workloads.forward import read_port
from kohakuriver.client.streams.forward import ForwardedPort, Transport
from kohakuriver.models.errors import InvalidInput

TCP, UDP = Transport.TCP, Transport.UDP


@pytest.mark.parametrize(
    ("text", "options", "port"),
    [
        ("8888", {}, ForwardedPort(TCP, 8888, "127.0.0.1", 8888)),
        ("8888:80", {}, ForwardedPort(TCP, 80, "127.0.0.1", 8888)),
        ("0:80", {}, ForwardedPort(TCP, 80, "127.0.0.1", 0)),
        ("5353/udp", {}, ForwardedPort(UDP, 5353, "127.0.0.1", 5353)),
        ("53:5353/udp", {"local_host": "::1"}, ForwardedPort(UDP, 5353, "::1", 53)),
        ("53", {"proto": "udp"}, ForwardedPort(UDP, 53, "127.0.0.1", 53)),
        ("53/tcp", {"proto": "udp"}, ForwardedPort(TCP, 53, "127.0.0.1", 53)),
        ("80", {"local_port": 0}, ForwardedPort(TCP, 80, "127.0.0.1", 0)),
        ("80", {"local_port": 8080}, ForwardedPort(TCP, 80, "127.0.0.1", 8080)),
    ],
)
def test_it_means_a_port_there_and_one_here(text: str, options: dict[str, Any], port: ForwardedPort) -> None:
    assert read_port(text, **options) == port


@pytest.mark.parametrize(
    "text", ["", "0", "80:0", "65536", "a", "80:", ":80", "1:2:3", "80/sctp", "80/UDP", "-1", "٨٠", "80 "]
)
def test_what_is_no_port_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput, match="write such as 8888"):
        read_port(text)


def test_a_local_port_is_said_once() -> None:
    with pytest.raises(InvalidInput):
        read_port("8080:80", local_port=9000)
