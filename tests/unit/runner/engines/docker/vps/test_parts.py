"""The pure parts of VPSs in Docker: what sshd is told, the container's body, addresses, and sentences."""

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.enums import SshKeyMode, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.spec import ContainerBody, ImageChoice, UserIds, WorkloadSpec
from kohakuriver.runner.engines.contract.vps import VpsSetup
from kohakuriver.runner.engines.docker.labels import Owner, snapshot_labels, workload_labels
from kohakuriver.runner.engines.docker.sandboxes.of_vps import wanted_addresses
from kohakuriver.runner.engines.docker.vps.ssh import set_up_fault
from kohakuriver.runner.engines.docker.vps.sshd_config import ssh_files, sshd_config
from kohakuriver.runner.engines.docker.workloads.body import EngineTraits, Placement, container_body

SETUP = VpsSetup("box", SshKeyMode.UPLOAD, ("ssh-ed25519 A me", "ssh-ed25519 B"), "secret", None, "")
SPEC = WorkloadSpec(
    task_id=TaskId(5),
    attempt=2,
    argv=("ignored",),
    env=(),
    cores=0,
    memory_bytes=0,
    binding=None,
    gpus=(),
    working_dir="/",
    user=UserIds(1, 2, (3,)),
    mounts=(),
    stdout_path=Path("/o"),
    stderr_path=Path("/e"),
    body=ContainerBody(ImageChoice(environment="e")),
    session=SETUP,
)


def test_a_vps_container_begins_with_our_program_as_root_and_is_labelled_as_one() -> None:
    body = container_body(SPEC, Placement(Owner("n"), "img", "sb"), EngineTraits())
    assert (body["Entrypoint"], body["Cmd"][0]) == (["/.kohakuriver/busybox"], "sleep")
    assert body["User"] == "0:0"
    assert (body["Labels"]["kohakuriver.task_type"], body["HostConfig"]["Init"]) == ("vps", True)
    assert body["Labels"]["kohakuriver.network_rights"] == "true", "its sandbox is never used again"
    task = container_body(replace(SPEC, session=None), Placement(Owner("n"), "img", "sb"), EngineTraits())
    assert (task["Cmd"][-1], task["User"]) == ("ignored", "1:2")
    of_root = replace(SPEC, session=None, user=UserIds(0, 0))
    assert container_body(of_root, Placement(Owner("n"), "img", "sb"), EngineTraits())["Entrypoint"] == [
        "ignored"
    ]
    assert task["Labels"]["kohakuriver.task_type"] == "command"


def test_a_snapshots_labels_blank_every_label_of_a_workload() -> None:
    of_workload = workload_labels(Owner("n"), TaskId(5), 2, TaskType.VPS, network_rights=True)
    blanked = snapshot_labels(TaskId(5))
    assert all(blanked[name] == "" for name in of_workload)


def test_keys_come_one_a_line_and_the_version_tells_what_sshd_must_be_restarted_for() -> None:
    files = ssh_files(SETUP, ())
    assert files["authorized_keys"] == "ssh-ed25519 A me\nssh-ed25519 B\n"
    assert files["host_key"] == "secret\n"
    fewer = ssh_files(replace(SETUP, authorized_keys=()), ())
    assert fewer["version"] == files["version"], "keys are read at each login"
    for changed in (
        ssh_files(replace(SETUP, host_key="other"), ()),
        ssh_files(replace(SETUP, ssh_key_mode=SshKeyMode.NONE), ()),
        ssh_files(SETUP, ("A=b",)),
    ):
        assert changed["version"] != files["version"]


def test_without_keys_nobody_comes_in_from_outside() -> None:
    text = sshd_config(SshKeyMode.NONE, ())
    general, _, rest = text.partition("Match Address 127.0.0.1\n")
    assert "ListenAddress 127.0.0.1\n" in general
    assert "PermitRootLogin no" in general
    assert "PermitEmptyPasswords" not in general
    assert "Match Address *,!127.0.0.1\n    DenyUsers *" in rest


@pytest.mark.parametrize("mode", [SshKeyMode.UPLOAD, SshKeyMode.GENERATE])
def test_with_keys_no_password_opens_anything(mode: SshKeyMode) -> None:
    text = sshd_config(mode, ())
    assert "PasswordAuthentication no" in text
    assert "PermitRootLogin prohibit-password" in text
    assert "PermitEmptyPasswords" not in text
    assert "Match" not in text


@given(st.lists(st.text(max_size=30), max_size=5))
def test_no_variable_adds_a_line_or_a_word_to_the_configuration(values: list[str]) -> None:
    env = [f"V{number}={value}" for number, value in enumerate(values)]
    plain = sshd_config(SshKeyMode.UPLOAD, ()).split("\n")
    extra = [line for line in sshd_config(SshKeyMode.UPLOAD, env).split("\n") if line not in plain]
    assert len(extra) <= 1
    for line in extra:
        assert line.startswith('SetEnv "V')
        assert line.count('"') % 2 == 0
        assert all(piece in ("SetEnv ", " ", "") for piece in line.split('"')[::2])


def test_what_sshd_sets_itself_is_left_to_it() -> None:
    assert "SetEnv" not in sshd_config(SshKeyMode.UPLOAD, ("HOME=/x", "USER=y", "broken"))


def test_the_address_before_is_asked_for_first_and_any_last() -> None:
    subnet = ipaddress.IPv4Network("10.0.0.0/24")
    first, *others, last = wanted_addresses(subnet, "10.0.0.9")
    assert (first, last) == ("10.0.0.9", None)
    assert others
    for other in others:
        assert other is not None
        assert 128 <= int(ipaddress.IPv4Address(other)) & 255 < 255, "neither low nor the broadcast address"


def test_an_address_of_another_network_is_not_asked_for() -> None:
    assert "10.9.9.9" not in list(wanted_addresses(ipaddress.IPv4Network("10.0.0.0/24"), "10.9.9.9"))
    assert list(wanted_addresses(ipaddress.IPv4Network("10.0.0.0/30"), None)) == [None]


def test_a_set_up_that_failed_says_what_helps_and_the_last_of_what_was_said() -> None:
    assert "neither sshd nor a package manager" in set_up_fault(10, "")
    said = set_up_fault(11, "long ago " * 500 + "E: Unable to\n  locate package")
    assert "could not add it" in said
    assert "E: Unable to locate package; choose another image" in said
    assert len(said) < 1000
    assert "Bad configuration" in set_up_fault(12, "Bad configuration")
    for status in (10, 11, 12, 137):
        assert "none of the options about SSH and keys, which is mode disabled" in set_up_fault(status, "")
