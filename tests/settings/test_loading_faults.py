"""How faults are told, all at once: of values, of names, of who may write the file; and what is in force."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.config import (
    HOST,
    RUNNER,
    ClientConfig,
    ConfigFaults,
    HostConfig,
    Program,
    RunnerConfig,
    effective_settings,
    load,
    load_runner_config,
)
from kohakuriver.models.enums import LogLevel
from support.cluster.config_files import as_root, faults_of, write_config

pytestmark = pytest.mark.usefixtures("home")


# Faults


def test_ten_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        "RUNNER_BIND_IP = 'everywhere'\n"
        "RUNNER_PORT = '8001'\n"
        "HOST_PORT = True\n"
        "SHARED_DIR = 'share'\n"
        "NUMACTL_PATH = '/no/such/numactl'\n"
        "RUNNER_USER = 'no-such-user-here'\n"
        "ADDITIONAL_MOUNTS = ['/no/such/dir:/data']\n"
        "DOCKER_NETWORK_GATEWAY = '10.0.0.1'\n"
        "LOG_LEVL = 'info'\n"
        "OVERLAY_SUBNET = '10.128.0.0/12/6/15'\n",
    )
    faults = faults_of(path)
    assert [fault.split(": ")[0] for fault in faults] == [f"{path}:{line}" for line in range(1, 11)]
    assert faults[1] == f"{path}:2: RUNNER_PORT = '8001': expected int, from 1 to 65535"
    assert faults[5].endswith("(there is no such user)")
    assert faults[7].endswith(
        "expected an address within DOCKER_NETWORK_SUBNET 172.30.0.0/16 (172.30.0.1 to 172.30.255.254)"
    )
    assert faults[8].endswith("LOG_LEVL = 'info': expected the name of a setting; the nearest is LOG_LEVEL")


def test_fault_carries_its_parts(tmp_path: Path) -> None:
    path = write_config(tmp_path, "\nRUNNER_PORT = 0")
    with pytest.raises(ConfigFaults) as raised:
        load_runner_config(path)
    (fault,) = raised.value.faults
    assert (fault.file, fault.line, fault.setting, fault.value) == (str(path), 2, "RUNNER_PORT", "0")
    assert fault.expected == "int, from 1 to 65535"
    assert raised.value.exit_status == 78


def test_faulty_default_says_that_it_is_one(tmp_path: Path) -> None:
    blocked = write_config(tmp_path, "", "blocked")
    path = write_config(tmp_path, f"DB_FILE = '{blocked}/db'")
    assert "is not a directory" in faults_of(path, HOST)[0]
    path = write_config(tmp_path, "DOCKER_NETWORK_SUBNET = '172.31.0.0/16'")
    assert faults_of(path)[0].startswith("(defaults): DOCKER_NETWORK_GATEWAY = '172.30.0.1'")


TOGETHER: list[tuple[Program[Any], str, str | None]] = [
    (RUNNER, "DOCKER_NETWORK_GATEWAY = '172.30.0.0'", "DOCKER_NETWORK_GATEWAY"),
    (RUNNER, "DOCKER_NETWORK_GATEWAY = '172.30.255.255'", "DOCKER_NETWORK_GATEWAY"),
    (RUNNER, "DOCKER_NETWORK_GATEWAY = '172.30.255.254'", None),
    (RUNNER, "VM_BRIDGE_GATEWAY = '10.200.1.1'", "VM_BRIDGE_GATEWAY"),
    (RUNNER, "VM_BRIDGE_SUBNET, VM_BRIDGE_GATEWAY = '172.30.9.0/24', '172.30.9.1'", "VM_BRIDGE_SUBNET"),
    (
        RUNNER,
        "VM_BRIDGE_SUBNET, VM_BRIDGE_GATEWAY, OVERLAY_ENABLED = '172.30.9.0/24', '172.30.9.1', True",
        None,
    ),
    (RUNNER, "OVERLAY_SUBNET, OVERLAY_ENABLED = '172.16.0.0/12/6/14', True", "OVERLAY_SUBNET"),
    (RUNNER, "OVERLAY_SUBNET, OVERLAY_ENABLED = '172.16.0.0/12/6/14', False", None),
    (RUNNER, "OVERLAY_VXLAN_ID = 16777215 - 62", "OVERLAY_VXLAN_ID"),
    (RUNNER, "OVERLAY_VXLAN_ID = 16777215 - 63", None),
    (HOST, "OVERLAY_VXLAN_ID = 16777215", "OVERLAY_VXLAN_ID"),
    (RUNNER, "OVERLAY_NETWORK_NAME = 'kohakuriver-net'; OVERLAY_ENABLED = True", "OVERLAY_NETWORK_NAME"),
    (HOST, "HOST_SSH_PROXY_PORT = 8000", "HOST_SSH_PROXY_PORT"),
    (HOST, "DB_FILE = '/etc'", "DB_FILE"),
    (HOST, "DB_FILE = '/etc/passwd/x'; DB_URL = 'postgresql://h/d'", None),
]


@pytest.mark.parametrize(("program", "text", "named"), TOGETHER)
def test_settings_fit_together(tmp_path: Path, program: Program[Any], text: str, named: str | None) -> None:
    loaded = load(program, write_config(tmp_path, text))
    assert {fault.setting for fault in loaded.faults} == ({named} if named else set())


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RUNER_PORT", "RUNNER_PORT"),
        ("RUNNER_PROT", "RUNNER_PORT"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("HEARTBEAT_INTERVAL", "HEARTBEAT_INTERVAL_SECONDS"),
        ("ADDITIONAL_MOUNT", "ADDITIONAL_MOUNTS"),
        ("TASK_PRIVILEGED", "TASKS_PRIVILEGED"),
        ("VM_IMAGE_DIR", "VM_IMAGES_DIR"),
    ],
)
def test_slip_in_a_name_is_a_fault_with_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    (fault,) = faults_of(write_config(tmp_path, f"{name} = 1"))
    assert fault.endswith(f"{name} = 1: expected the name of a setting; the nearest is {nearest}")


@pytest.mark.parametrize(
    "name",
    [
        "BASE_DIR",
        "DATA_DIR",
        "HOME",
        "NODE_NAME",
        "SUBNET",
        "PREFIX",
        "HOST_IP",
        "RACK",
        "MTU",
        "DEBUG",
        "USER",
    ],
)
def test_constant_of_the_files_own_is_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_config(tmp_path, f"{name} = 'secret-value'\nRUNNER_PORT = 9001")
    with caplog.at_level(logging.WARNING):
        assert load_runner_config(path) == RunnerConfig(runner_port=9001)
    assert caplog.messages == [f"{path}:1: {name} is not a setting of the runner; nothing reads it"]


def test_setting_of_the_other_daemon_is_a_warning(tmp_path: Path) -> None:
    loaded = load(RUNNER, write_config(tmp_path, "CONTAINER_DIR = '/x'"))
    assert loaded.config() == RunnerConfig()
    assert loaded.warnings[0].endswith("CONTAINER_DIR is a setting of the host, not of the runner")


def test_imported_and_private_and_lower_case_names_are_left_alone(tmp_path: Path) -> None:
    text = (
        "from signal import SIGTERM as RUNNERS_PORT\nimport os as LOG_LEVL\nfrom stat import *\n"
        "_RUNNER_PROT = 1\nrunner_prot = 2\nclass RUNNER_PROT: pass\n"
    )
    loaded = load(RUNNER, write_config(tmp_path, text))
    assert loaded.faults == ()
    assert loaded.warnings == ()


def test_name_in_a_computed_configuration_is_checked_as_well(tmp_path: Path) -> None:
    text = "from kohakuengine import Config\ndef config_gen():\n    return Config({'RUNNER_PROT': 1})"
    path = write_config(tmp_path, text)
    assert faults_of(path)[0].startswith(f"{path}: RUNNER_PROT = 1: expected")


# Who may write and read it


@as_root
def test_file_that_others_can_write_is_refused_unrun(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write_config(tmp_path, f"open({str(mark)!r}, 'w')")
    path.chmod(0o666)
    assert "only root can write" in faults_of(path)[0]
    os.chmod(path, 0o600)
    os.chown(path, 12345, 12345)
    assert "only root can write" in faults_of(path)[0]
    os.chown(path, 0, 12345)
    os.chmod(path, 0o660)
    assert "only root can write" in faults_of(path)[0]
    assert not mark.exists()


@as_root
def test_file_in_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = write_config(folder, "")
    folder.chmod(0o777)
    assert "in a directory that only root can write" in faults_of(path)[0]
    folder.chmod(0o1777)
    assert faults_of(path) == []


@as_root
def test_link_is_judged_by_what_it_points_at(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    write_config(folder, "")
    folder.chmod(0o777)
    (tmp_path / "link.py").symlink_to(folder / "some_config.py")
    assert "only root can write" in faults_of(tmp_path / "link.py")[0]


CANARY = "canary-5f2e1"
SECRETS: list[tuple[Program[Any], str]] = [
    (HOST, f"ADMIN_SECRET = '{CANARY}'"),
    (HOST, f"ADMIN_SECRET = ['{CANARY}']"),
    (HOST, f"ADMIN_REGISTER_SECRET = '{CANARY} x'"),
    (HOST, f"ADMIN_SECERT = '{CANARY}'"),
    (HOST, f"DB_URL = 'postgresql://u:{CANARY}@h/d'"),
    (HOST, f"DB_URL = 'mysql://u:{CANARY}@h/d'"),
    (HOST, f"DB_URL = 'postgresql://u:p@{CANARY}:{CANARY}/d'"),
    (RUNNER, f"JOIN_TOKEN = 'krj1.a.{CANARY}.c'"),
    (RUNNER, f"JOIN_TOKEN = '{CANARY}'"),
    (RUNNER, f"JOIN_TOKN = '{CANARY}'"),
    (RUNNER, f"UNHEARD_OF = '{CANARY}'"),
]


@pytest.mark.parametrize(("program", "text"), SECRETS)
def test_secret_is_never_shown(tmp_path: Path, program: Program[Any], text: str) -> None:
    path = write_config(tmp_path, text)
    path.chmod(0o644)
    loaded = load(program, path)
    shown = [str(fault) for fault in loaded.faults] + list(loaded.warnings)
    shown += [f"{row.text} {row.value} {row.source}" for row in loaded.settings]
    if not loaded.faults:
        shown.append(repr(loaded.config()))
    assert shown
    assert not [line for line in shown if CANARY in line]


def test_secret_in_a_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = write_config(tmp_path, "ADMIN_SECRET = 'x'")
    assert load(HOST, path).warnings == ()
    path.chmod(0o644)
    assert "chmod 600" in load(HOST, path).warnings[0]


def test_host_open_to_all_is_a_warning(tmp_path: Path) -> None:
    assert "AUTH_ENABLED" in load(HOST, write_config(tmp_path, "AUTH_ENABLED = False")).warnings[0]
    path = write_config(tmp_path, "AUTH_ENABLED = False; HOST_BIND_IP = '127.0.0.1'")
    assert load(HOST, path).warnings == ()


# What is in force


def test_effective_settings_tell_where_each_came_from(tmp_path: Path) -> None:
    path = write_config(tmp_path, "RUNNER_PORT = 9001\nLOG_LEVEL = 'Debug'\nHOST_PORT = 0\n")
    rows = {row.setting.name: row for row in effective_settings(RUNNER, path)}
    assert len(rows) == len(RUNNER.settings)
    assert (rows["RUNNER_PORT"].value, rows["RUNNER_PORT"].source) == (9001, f"{path}:1")
    assert (rows["LOG_LEVEL"].value, rows["LOG_LEVEL"].text) == (LogLevel.DEBUG.value, "'Debug'")
    assert (rows["HOST_PORT"].value, rows["HOST_PORT"].source) == ("0", f"{path}:3")
    assert (rows["VM_BRIDGE_NAME"].value, rows["VM_BRIDGE_NAME"].source) == ("kohaku-br0", "default")


def test_addresses_and_directories_follow_the_settings(tmp_path: Path) -> None:
    assert RunnerConfig().host_url == "http://127.0.0.1:8000"
    assert RunnerConfig(host_address="h", host_port=9).host_url == "http://h:9"
    assert RunnerConfig(host_address="::1").host_url == "http://[::1]:8000"
    assert RunnerConfig(host_address="http://h:7", host_port=9).host_url == "http://h:7"
    assert RunnerConfig(host_address="https://h/", host_port=9).host_url == "https://h:9"
    assert RunnerConfig().tarball_dir == "/mnt/cluster-share/kohakuriver-containers"
    assert RunnerConfig(container_tar_dir="/t").tarball_dir == "/t"
    assert HostConfig(shared_dir="/s").tarball_dir == "/s/kohakuriver-containers"
    assert ClientConfig(host="http://h:7").url == "http://h:7"
    assert [str(mount) for mount in RunnerConfig(additional_mounts=("/a:/b:ro",)).mounts] == ["/a:/b:ro"]
    assert str(RunnerConfig(overlay_subnet="10.0.0.0/8/8/16").overlay.runner_network(2)) == "10.2.0.0/16"
