"""What may be asked of a container: one form for each, and no way past the rules."""

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.container_options import (
    ContainerOptions,
    checked_options,
    parse_device,
    parse_ulimit,
)


def test_limits_have_one_form() -> None:
    assert str(parse_ulimit("nofile=1024")) == "nofile=1024:1024"
    assert str(parse_ulimit("memlock=unlimited")) == "memlock=-1:-1"
    assert str(parse_ulimit("core=0:unlimited")) == "core=0:-1"
    assert checked_options(ContainerOptions(ulimits=("stack=1", "core=0"))).ulimits == (
        "core=0:0",
        "stack=1:1",
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "nofile", "nofile=", "nofile=x", "nofile=1:2:3", "NOFILE=1", "as=1", "nofile=-1", "nofile=-2"),
        *("nofile=2:1", "nofile=1048577", "stack=-1:5", f"stack={1 << 63}", "nofile=1 ", "nofile=\u0661"),
    ],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checked_options(ContainerOptions(ulimits=(text,)))


def test_a_limit_or_a_place_is_named_once() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        checked_options(ContainerOptions(ulimits=("core=0", "core=1")))
    with pytest.raises(InvalidInput, match="same path"):
        checked_options(ContainerOptions(devices=("/dev/a:/dev/x", "/dev/b:/dev/x")))


def test_devices_have_one_form() -> None:
    assert str(parse_device("/dev/fuse")) == "/dev/fuse:/dev/fuse:rwm"
    assert str(parse_device("/dev/a:/dev/b")) == "/dev/a:/dev/b:rwm"
    assert str(parse_device("/dev/a:r")) == "/dev/a:/dev/a:r"
    assert str(parse_device("/dev/dri/card0:/dev/x:rw")) == "/dev/dri/card0:/dev/x:rw"


@pytest.mark.parametrize(
    "text",
    [
        *("", "fuse", "/dev", "/dev/", "/dev/../etc/shadow", "/dev/./x", "/etc/passwd", "/dev/a:/etc/passwd"),
        *("/dev/a:/dev/b:rwx", "/dev/a:/dev/b:wr", "/dev/a:", "/dev/a::r", "/dev/a\n", "/dev/" + "a" * 300),
    ],
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checked_options(ContainerOptions(devices=(text,)))


@pytest.mark.parametrize(
    "user", ["a b", ":", "a:", "-a", "a/b", "2147483648", "0:2147483648", "a" * 33, "a\n"]
)
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(InvalidInput):
        checked_options(ContainerOptions(user=user))


@pytest.mark.parametrize("name", ["-a", "a-", "a..b", "a b", "a" * 64, "a\n", "\u00e4"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        checked_options(ContainerOptions(hostname=name))


def test_what_reaches_the_node_is_said() -> None:
    assert ContainerOptions(ulimits=("nofile=1:1",), ipc="private", user="root").ways_to_the_node == ()
    asked = ContainerOptions(devices=("/dev/a",), ipc="host", ulimits=("nice=1:1",))
    assert asked.ways_to_the_node == ("devices /dev/a", "the node's IPC", "limits nice=1:1")
