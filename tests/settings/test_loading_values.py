"""Each setting with good values and with bad ones: the bad are faults that name it, the good are kept."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kohakuriver.config import CLIENT, HOST, RUNNER, Program
from kohakuriver.config.loading import judge, safe_value
from kohakuriver.config.settings import Setting
from kohakuriver.models.enums import LogLevel

NO_BOOLS: list[Any] = [0, 1, "True", "", None, [], 1.0]
NO_TEXT: list[Any] = [None, 1, True, b"x", ["x"], {"x": 1}, LogLevel.INFO]
NO_NUMBERS: list[Any] = [None, True, False, "1", 1.0, [1], -1, 10**30]
NO_PORTS = [*NO_NUMBERS, 0, 65536]
NO_SECONDS = [*NO_NUMBERS, 0]
NO_PATHS = [*NO_TEXT, "relative/path", "~/path", "/with\0nul", "/with\nnewline", "/" + "x" * 5000]
NO_MOUNTED_PATHS = [*NO_PATHS, "", "/with,comma", "/with:colon"]
NO_PROGRAMS = [*NO_PATHS, "/no/such/program", "/etc", "/etc/passwd"]
NO_FILES = [*NO_PATHS, "/etc", "/etc/passwd/below", "/dev/null", "/directory/"]
NO_ADDRESSES = [
    *NO_TEXT,
    "",
    "host name",
    "1.2.3",
    "1.2.3.4.5",
    "300.1.1.1",
    "::g",
    "fe80::1%eth0",
    " 1.1.1.1",
]
NO_HOSTS = [*NO_TEXT, "", "two words", "300.1.1.1", "a..b", "-a", "a" * 64, "a:1", "h/x", "ä"]
NO_URLS = [
    *NO_HOSTS,
    "http://",
    "http://h:0",
    "http://h:70000",
    "ftp://h",
    "http://u@h",
    "http://h/path",
    "http://h?q",
]
NO_SUBNETS = [
    *NO_TEXT,
    "",
    "10.0.0.0",
    "10.0.0.1/24",
    "10.0.0.0/33",
    "10.0.0.0/31",
    "fd00::/64",
    "224.0.0.0/8",
]
NO_IPV4 = [*NO_TEXT, "", "10.0.0", "10.0.0.256", "::1", "10.0.0.1/24"]
NO_DOCKER_NAMES = [*NO_TEXT, "", "x", "-net", "a b", "a/b", "x" * 129, "host", "none", "bridge", "näme"]
NO_OVERLAY = [
    *NO_TEXT,
    "",
    "10.128.0.0/12",
    "10.128.0.0/12/6/13",
    "10.128.0.0/12/6/15",
    "10.128.0.1/12/6/14",
    "10.300.0.0/12/6/14",
    "10.128.0.0/18/7/7",
    "10.128.0.0/18/0/14",
    "x/12/6/14",
]
NO_MOUNTS: list[Any] = [
    None,
    "/tmp:/tmp",
    ("/tmp:/tmp",),
    [1],
    [None],
    ["/tmp"],
    ["tmp:/tmp"],
    ["/tmp:tmp"],
    ["/tmp:/tmp:rx"],
    ["/no/such/place:/x"],
    ["/tmp:/x,y"],
    ["/tmp:/../x"],
    ["/tmp:/proc"],
    ["/tmp:/x", "/tmp:/x"],
    ["/tmp:/local_temp"],
]
NO_FRACTIONS: list[Any] = [None, True, "0.5", 0, 0.0, -0.1, 1.01, float("nan"), float("inf"), 10**400]
NO_LEVELS: list[Any] = [None, 20, True, "", "loud", "ERROR", [LogLevel.INFO]]
NO_SECRETS = [*NO_TEXT, "with space", "with\nnewline", "ü", "x" * 1025]
NO_TOKENS = [*NO_TEXT, "krj1", "krj1.a.b", "krj2.a.b.c", "krj1.a.b.c d", "krj1.a..c"]

NO_PLACES: list[Any] = [
    None,
    "control",
    ("control",),
    [1],
    [""],
    ["everything"],
    ["Metadata"],
    ["host.example.org:80"],
    ["10.0.0.1/8"],
    ["10.0.0.0/33"],
    ["10.0.0.1:0"],
    ["10.0.0.1:65536"],
    ["10.0.0.1:http"],
    ["10.0.0.1:٣"],
    ["[::1"],
    ["[::1]80"],
    ["fe80::1%eth0"],
    ["10.0.0.1; drop"],
]

BAD: dict[str, list[Any]] = {
    "RUNNER_BIND_IP": NO_ADDRESSES,
    "RUNNER_PORT": NO_PORTS,
    "HOST_ADDRESS": NO_URLS,
    "HOST_PORT": NO_PORTS,
    "SHARED_DIR": NO_MOUNTED_PATHS,
    "LOCAL_TEMP_DIR": [*NO_MOUNTED_PATHS, "/etc/passwd", "/etc/passwd/x"],
    "CONTAINER_TAR_DIR": NO_PATHS,
    "NUMACTL_PATH": NO_PROGRAMS,
    "RUNNER_LOG_FILE": NO_FILES,
    "HEARTBEAT_INTERVAL_SECONDS": NO_SECONDS,
    "RESOURCE_CHECK_INTERVAL_SECONDS": NO_SECONDS,
    "RUNNER_USER": [*NO_TEXT, "no-such-user-here", "0", "with\0nul", "\ud800"],
    "DEFAULT_WORKING_DIR": [*NO_PATHS, ""],
    "TASKS_PRIVILEGED": NO_BOOLS,
    "ADDITIONAL_MOUNTS": NO_MOUNTS,
    "DOCKER_IMAGE_SYNC_TIMEOUT": NO_SECONDS,
    "DOCKER_NETWORK_NAME": NO_DOCKER_NAMES,
    "DOCKER_NETWORK_SUBNET": NO_SUBNETS,
    "DOCKER_NETWORK_GATEWAY": NO_IPV4,
    "TUNNEL_ENABLED": NO_BOOLS,
    "TUNNEL_CLIENT_PATH": NO_PROGRAMS,
    "AUTO_SNAPSHOT_ON_STOP": NO_BOOLS,
    "MAX_SNAPSHOTS_PER_VPS": NO_NUMBERS,
    "AUTO_RESTORE_ON_CREATE": NO_BOOLS,
    "VM_IMAGES_DIR": [*NO_PATHS, ""],
    "VM_INSTANCES_DIR": [*NO_PATHS, ""],
    "VM_DEFAULT_MEMORY_MB": [*NO_NUMBERS, 127],
    "VM_DEFAULT_DISK_SIZE": [
        *NO_TEXT,
        "",
        "500",
        "G",
        "0G",
        "500GB",
        "1.5G",
        "-5G",
        "500g",
        " 5G",
        "\u0665G",
    ],
    "VM_ACS_OVERRIDE": NO_BOOLS,
    "VM_BOOT_TIMEOUT_SECONDS": NO_SECONDS,
    "VM_SSH_READY_TIMEOUT_SECONDS": NO_SECONDS,
    "VM_HEARTBEAT_TIMEOUT_SECONDS": NO_SECONDS,
    "VM_BRIDGE_NAME": [*NO_TEXT, "", "x" * 16, "a b", "a/b", "-br", ".", "..", "a:b"],
    "VM_BRIDGE_SUBNET": [*NO_SUBNETS, "10.200.0.0/29"],
    "VM_BRIDGE_GATEWAY": NO_IPV4,
    "OVERLAY_ENABLED": NO_BOOLS,
    "OVERLAY_SUBNET": NO_OVERLAY,
    "OVERLAY_NETWORK_NAME": NO_DOCKER_NAMES,
    "OVERLAY_VXLAN_ID": [*NO_NUMBERS, 0, 16_777_216],
    "OVERLAY_VXLAN_PORT": NO_PORTS,
    "OVERLAY_MTU": [*NO_NUMBERS, 575, 9001],
    "LOG_LEVEL": NO_LEVELS,
    "SANDBOX_POOL_SIZE": [*NO_NUMBERS, 257],
    "JOIN_TOKEN": NO_TOKENS,
    "LOCAL_IMAGES": ["x", [1], ["a b"], ["ok:1", "http://h/i"], ["kohakuriver/x:base"], ["f" * 12]],
    "TASK_PIDS_LIMIT": [*NO_NUMBERS, (1 << 22) + 1],
    "DEFAULT_MEMORY_LIMIT": [value for value in NO_FRACTIONS if value != 0],
    "HOST_FINGERPRINT": [
        *NO_TEXT,
        "x",
        "SHA256:",
        "SHA256:" + "a" * 42,
        "SHA256:" + "a" * 44,
        "SHA256:" + "-" * 43,
        " SHA256:" + "a" * 43,
        "SHA256:" + "a" * 43 + "\n",
    ],
    "WORKLOAD_EGRESS_DENY": NO_PLACES,
    "HOST_BIND_IP": NO_ADDRESSES,
    "HOST_SSH_PROXY_PORT": NO_PORTS,
    "HOST_REACHABLE_ADDRESS": [*NO_HOSTS, "http://h:8000"],
    "DB_FILE": [*NO_PATHS, ""],
    "DB_URL": [*NO_TEXT, "x", "sqlite:///x", "postgresql://h", "postgresql://h:x/d", "postgresql://h/d d"],
    "CONTAINER_DIR": NO_PATHS,
    "HOST_LOG_FILE": NO_FILES,
    "HEARTBEAT_TIMEOUT_FACTOR": [*NO_NUMBERS, 0, 1],
    "CLEANUP_CHECK_INTERVAL_SECONDS": NO_SECONDS,
    "DEFAULT_CONTAINER_NAME": [*NO_TEXT, "", "../x", "UPPER", "a b", "x" * 64],
    "INITIAL_BASE_IMAGE": [*NO_TEXT, "", "-v", "a b", "UPPER", "http://h/i"],
    "ENV_CONTAINER_CPU_LIMIT": NO_FRACTIONS,
    "ENV_CONTAINER_MEM_LIMIT": NO_FRACTIONS,
    "AUTH_ENABLED": NO_BOOLS,
    "SSH_PROXY_V1": NO_BOOLS,
    "ADMIN_SECRET": NO_SECRETS,
    "ADMIN_REGISTER_SECRET": NO_SECRETS,
    "SESSION_EXPIRE_HOURS": NO_SECONDS,
    "INVITATION_EXPIRE_HOURS": NO_SECONDS,
    "MAX_WAITING_TASKS_PER_USER": NO_SECONDS,
    "MAX_WAITING_MIB_PER_USER": NO_SECONDS,
    "KEEP_OUTPUT_DAYS": [*NO_NUMBERS, 36_501],
    "KEEP_TASKS_DAYS": [*NO_NUMBERS, 36_501],
    "KEEP_EVENTS_DAYS": [*NO_NUMBERS, 36_501],
    "KEEP_SNAPSHOTS_DAYS": [*NO_NUMBERS, 36_501],
    "KEEP_IMAGES_DAYS": [*NO_NUMBERS, 36_501],
    "KEEP_LOCAL_TEMP_DAYS": [*NO_NUMBERS, 36_501],
    "HOST": NO_URLS,
    "PORT": NO_PORTS,
    "SSH_PROXY_PORT": NO_PORTS,
    "TOKEN": NO_SECRETS,
}

GOOD: dict[str, list[tuple[object, object]]] = {
    "RUNNER_BIND_IP": [("127.0.0.1", "127.0.0.1"), ("::", "::")],
    "RUNNER_PORT": [(1, 1), (65535, 65535)],
    "HOST_ADDRESS": [(text, text) for text in ("h", "h.example.org", "::1", "http://h:9", "https://[::1]/")],
    "SHARED_DIR": [("/not/there", "/not/there"), (Path("/srv"), "/srv")],
    "LOCAL_TEMP_DIR": [("/tmp", "/tmp"), ("/tmp/not/yet/there", "/tmp/not/yet/there")],
    "NUMACTL_PATH": [("", ""), ("/bin/sh", "/bin/sh")],
    "RUNNER_LOG_FILE": [("", ""), ("/tmp/not/yet/there.log", "/tmp/not/yet/there.log")],
    "RUNNER_USER": [("", ""), ("root", "root"), ("nobody", "nobody")],
    "ADDITIONAL_MOUNTS": [([], ()), (["/tmp:/x", "/etc:/y:ro"], ("/tmp:/x", "/etc:/y:ro"))],
    "MAX_SNAPSHOTS_PER_VPS": [(0, 0)],
    "VM_DEFAULT_MEMORY_MB": [(128, 128)],
    "VM_DEFAULT_DISK_SIZE": [("1T", "1T"), ("20G", "20G")],
    "VM_BRIDGE_NAME": [("x" * 15, "x" * 15)],
    "OVERLAY_SUBNET": [("10.0.0.0/8/8/16", "10.0.0.0/8/8/16")],
    "OVERLAY_MTU": [(576, 576), (9000, 9000)],
    "LOG_LEVEL": [
        (LogLevel.FULL, LogLevel.FULL),
        ("full", LogLevel.FULL),
        ("Debug", LogLevel.DEBUG),
        ("WARNING", LogLevel.WARNING),
    ],
    "SANDBOX_POOL_SIZE": [(0, 0)],
    "KEEP_OUTPUT_DAYS": [(0, 0)],
    "KEEP_TASKS_DAYS": [(0, 0)],
    "KEEP_EVENTS_DAYS": [(0, 0)],
    "KEEP_SNAPSHOTS_DAYS": [(0, 0)],
    "KEEP_IMAGES_DAYS": [(0, 0)],
    "KEEP_LOCAL_TEMP_DAYS": [(0, 0)],
    "LOCAL_IMAGES": [([], ()), (["a:1", "h:5/b"], ("a:1", "h:5/b"))],
    "TASK_PIDS_LIMIT": [(0, 0)],
    "DEFAULT_MEMORY_LIMIT": [(0, 0.0), (1, 1.0)],
    "JOIN_TOKEN": [("", ""), ("krj1.a1.s-_=.ab:cd", "krj1.a1.s-_=.ab:cd")],
    "HOST_FINGERPRINT": [("", ""), ("SHA256:" + "a+/" * 14 + "b", "SHA256:" + "a+/" * 14 + "b")],
    "WORKLOAD_EGRESS_DENY": [
        ([], ()),
        (["metadata", "10.0.0.0/8:22"], ("metadata", "10.0.0.0/8:22")),
        (["::1", "[fd00::/8]:80", "[fd00::1]"], ("::1", "[fd00::/8]:80", "[fd00::1]")),
    ],
    "DB_URL": [("", ""), ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/d")],
    "ENV_CONTAINER_CPU_LIMIT": [(1, 1.0), (0.01, 0.01)],
    "TOKEN": [("abc-_123", "abc-_123")],
}

TABLE: list[tuple[Program[Any], Setting]] = [
    (program, setting) for program in (RUNNER, HOST, CLIENT) for setting in program.settings
]


def each(values: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(setting, value, id=f"{program.name}-{setting.name}-{str(value)[:20]!a}")
        for program, setting in TABLE
        for value in values.get(setting.name, [])
    ]


def test_every_setting_has_bad_values_here() -> None:
    assert {setting.name for _, setting in TABLE} == BAD.keys()


@pytest.mark.parametrize(("setting", "value"), each(BAD))
def test_bad_value_is_refused_saying_what_was_expected(setting: Setting, value: object) -> None:
    expected = judge(setting, value)
    assert expected is not None
    assert expected.startswith(f"{setting.type_name}, ")


@pytest.mark.parametrize(("setting", "pair"), each(GOOD))
def test_good_value_is_kept(setting: Setting, pair: tuple[object, object]) -> None:
    value, kept = pair
    assert judge(setting, value) is None
    assert setting.accept(value) == kept
    assert type(setting.accept(value)) is type(kept)


@pytest.mark.parametrize("setting", [setting for _, setting in TABLE], ids=lambda setting: setting.name)
def test_default_is_good(setting: Setting) -> None:
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    assert judge(setting, default) is None


@pytest.mark.parametrize("name", ["LOCAL_TEMP_DIR", "RUNNER_LOG_FILE"])
def test_check_of_a_path_makes_nothing(name: str, tmp_path: Path) -> None:
    (setting,) = (setting for _, setting in TABLE if setting.name == name)
    assert judge(setting, str(tmp_path / "a" / "b")) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["LOCAL_TEMP_DIR", "RUNNER_LOG_FILE"])
def test_place_that_the_system_calls_unwritable_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (setting,) = (setting for _, setting in TABLE if setting.name == name)
    asked: list[str] = []

    def access(path: str, mode: int, **_: object) -> bool:
        asked.append(path)
        return not mode & os.W_OK

    monkeypatch.setattr(os, "access", access)
    assert "not writable" in (judge(setting, str(tmp_path / "a" / "b")) or "")
    assert asked == [str(tmp_path)]


LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.from_regex(r"[/a-z0-9.:%@\[\]-]{0,30}", fullmatch=True)
    | st.binary()
    | st.sampled_from([LogLevel.INFO, "\ud800", "/" * 300, datetime.timedelta, print, object()]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("setting", [setting for _, setting in TABLE], ids=lambda setting: setting.name)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=LITERALS)
def test_any_value_is_judged_and_shown_in_one_line(setting: Setting, value: object) -> None:
    expected = judge(setting, value)
    assert expected is None or expected.startswith(setting.type_name)
    text = safe_value(setting, value)
    assert text.isprintable()
    assert len(text) < 200
    if expected is None:
        setting.accept(value)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("kind", ["number without end", "object that cannot be shown", "list of itself"])
def test_value_that_python_cannot_show_is_a_fault_all_the_same(kind: str) -> None:
    endless: list[Any] = []
    endless.append(endless)
    value = {
        "number without end": 10**5000,
        "object that cannot be shown": Unshowable(),
        "list of itself": endless,
    }[kind]
    for _, setting in TABLE:
        assert judge(setting, value) is not None
        assert safe_value(setting, value).isprintable()
