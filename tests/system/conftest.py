"""One machine for the whole lane: booted once, with a cluster by `up`, then by units."""

import os
import shutil
from collections.abc import Iterator

import pytest

from kohakuriver.models.errors import Unavailable
from support.emulated.accelerators import QEMU
from support.emulated.emulator import booted
from support.emulated.guest import Guest
from support.emulated.machine_image import machine_image
from support.emulated.served import Up, await_node


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The booted machine, with the package installed and nothing running but Docker."""
    for program in (QEMU, "mke2fs"):
        if shutil.which(program) is None:
            _lacking(f"{program} is not installed (tools/setup.sh system)")
    try:
        image = machine_image()
    except Unavailable as error:
        _lacking(str(error))
    with booted(image, tmp_path_factory.mktemp("machine")) as guest:
        yield guest


def _lacking(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def first_up(guest: Guest) -> Up:
    return Up(guest.run("kohakuriver", "up", seconds=900))


@pytest.fixture(scope="session")
def units(guest: Guest, first_up: Up) -> Guest:
    """The same cluster, served by units of `init service` from then on; it survives what tests do to it."""
    assert first_up.answer.status == 0, first_up.answer.shown
    guest.check("kohakuriver", "down")
    guest.check("kohakuriver", "init", "service", "--all", "--output", "/etc/systemd/system")
    guest.check("systemctl", "daemon-reload")
    guest.check("systemctl", "enable", "--now", "kohakuriver-host", "kohakuriver-runner")
    await_node(guest)
    return guest


@pytest.fixture
def served(units: Guest) -> Guest:
    """It, ready for work; what went wrong before is no later test's fault."""
    await_node(units)
    return units
