"""Plans that `ip` and `bridge` (stand-ins) carry out, or refuse."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.network.ensure import apply
from kohakuriver.network.plan import Command, Plan
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.wanted import Setting

DEVICE = Command(
    "link add name kohaku-vx address 02:00:00:00:00:01 type vxlan id 100", "the device kohaku-vx"
)
ROUTE = Command("route replace 10.2.0.0/16 via 10.2.0.1 dev kohaku-vx", "the route 10.2.0.0/16 by kohaku-vx")
ENTRY = Command("fdb replace 02:00:00:00:00:02 dev kohaku-vx master static", "the entry of kohaku-vx")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that note what they are given, and succeed."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("ip", "bridge"):
        stand_in(tmp_path, name, "")
    return tmp_path


def stand_in(folder: Path, name: str, complaint: str) -> None:
    script = f'echo "$@" > {folder}/{name}.given\ncat >> {folder}/{name}.given\n'
    if complaint:
        script += f"printf '{complaint}' >&2\nexit 1\n"
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)


def test_a_plan_is_one_call_of_each_program(machine: Path) -> None:
    asyncio.run(apply(Plan((DEVICE, ROUTE), (), (ENTRY,))))
    assert (machine / "ip.given").read_text() == f"-force -batch -\n{DEVICE.line}\n{ROUTE.line}\n"
    assert (machine / "bridge.given").read_text() == f"-force -batch -\n{ENTRY.line}\n"


def test_where_there_is_nothing_to_do_no_program_is_run(machine: Path) -> None:
    asyncio.run(apply(Plan()))
    assert not (machine / "ip.given").exists()


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        (
            "Error: Unknown device type.\\nCommand failed -:1\\nCannot find device\\nCommand failed -:2\\n",
            r"the device kohaku-vx cannot be put right: this kernel has no devices of this kind \(module vxl",
        ),
        (
            "RTNETLINK answers: Operation not supported\\nCommand failed -:1\\n",
            r"this kernel has no devices of this kind \(module vxlan",
        ),
        (
            "RTNETLINK answers: Operation not permitted\\nCommand failed -:1\\n",
            "device kohaku-vx cannot be put right: this process may not change the network .*run it as root",
        ),
        (
            "RTNETLINK answers: Network is unreachable\\nCommand failed -:2\\n",
            "^the route 10.2.0.0/16 by kohaku-vx cannot be put right: Network is unreachable$",
        ),
        ("it broke\\n", "ip refused: it broke"),
        ("Cannot find it\\nCommand failed -:77\\n", "ip refused: Cannot find it"),
    ],
)
def test_a_refusal_names_what_it_is_about_and_the_rest_is_done(
    machine: Path, complaint: str, expected: str
) -> None:
    stand_in(machine, "ip", complaint)
    with pytest.raises(NetworkFault, match=expected):
        asyncio.run(apply(Plan((DEVICE, ROUTE), (), (ENTRY,))))
    assert ENTRY.line in (machine / "bridge.given").read_text()


def test_a_setting_of_a_link_that_is_not_there_is_named(machine: Path) -> None:
    setting = Setting("no-such-link", "send_redirects", 0)
    with pytest.raises(NetworkFault, match="the setting send_redirects of no-such-link cannot be set to 0"):
        asyncio.run(apply(Plan((), (setting,), (ENTRY,))))
    assert ENTRY.line in (machine / "bridge.given").read_text()
