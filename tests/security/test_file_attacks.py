"""Attacks on files of workloads (lines 15, 17 and 19 of the threats), from the host's interface down."""

import asyncio
import base64
import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.files.looking import list_folder
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system.kernel_mounts import KernelMounts
from support.engines import docker_lab
from support.file_path import FilePath, file_path

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

HOST_ONLY = Path("/etc/machine-id-of-the-test")
"""A file of this machine, with a name that no image has."""


@pytest.fixture(scope="module")
async def path(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FilePath]:
    HOST_ONLY.write_text("of the host")
    try:
        async with (
            docker_lab(tmp_path_factory.mktemp("engine"), pool_size=1) as lab,
            file_path(tmp_path_factory.mktemp("host"), lab) as ready,
        ):
            yield ready
    finally:
        HOST_ONLY.unlink()


@pytest.mark.parametrize(
    "spelling",
    [
        "/../../../../../..{0}",
        "/tmp/../..{0}",
        "{0}",
        "//{0}",
        "/.{0}",
        "/proc/self/root{0}",
        "/proc/1/root{0}",
        "/proc/../proc/1/root{0}",
        "/proc/1/cwd/..{0}",
        "/dev/fd/../..{0}",
        "/x/absolute",
        "/x/upwards",
        "/x/root{0}",
        "/x/self{0}",
        "/x/chain",
    ],
)
async def test_no_spelling_reaches_a_file_of_the_host(path: FilePath, spelling: str) -> None:
    _plant_links(path.root)
    target = spelling.format(HOST_ONLY)
    for name in ("read", "stat", "list", "archive"):
        answer = await path.call("GET", name, params={"path": target})
        assert b"of the host" not in answer.content
        if name == "read":
            assert answer.status_code in (403, 404, 409, 422), answer.text
    for method, name, options in (
        ("POST", "write", {"json": {"path": target, "content": "hostile"}}),
        ("DELETE", "delete", {"params": {"path": target, "recursive": "true"}}),
        ("POST", "rename", {"json": {"source": target, "destination": "/stolen"}}),
        ("POST", "rename", {"json": {"source": "/x", "destination": target, "overwrite": True}}),
        ("PUT", "archive", {"params": {"path": target}, "content": _tar("hostile")}),
    ):
        await path.call(method, name, **options)
        assert HOST_ONLY.read_text() == "of the host", (method, name)
        # As a link it is the workload's own again; what it names here is not what it names in there.
        stolen = path.root / "stolen"
        assert stolen.is_symlink() or not stolen.exists() or stolen.read_text() != "of the host"
        stolen.unlink(missing_ok=True)
        _plant_links(path.root)


def _plant_links(root: Path) -> None:
    folder = root / "x"
    if folder.is_dir() and not folder.is_symlink():
        for entry in folder.iterdir():
            entry.unlink()
    else:
        folder.unlink(missing_ok=True)
        folder.mkdir()
    for name, target in (
        ("absolute", str(HOST_ONLY)),
        ("upwards", "../../../../../../.." + str(HOST_ONLY)),
        ("root", "/proc/1/root"),
        ("self", "/proc/self/root"),
        ("chain", "/x/root/x/upwards"),
    ):
        (folder / name).symlink_to(target)


def _tar(*names: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encoded", ["%2e%2e%2f%2e%2e%2fetc", "/%2e%2e/%2e%2e/etc", "/..%252f..%252fetc", "/%00/etc"]
)
async def test_encodings_are_read_once_and_lead_nowhere(path: FilePath, encoded: str) -> None:
    answer = await path.call("GET", f"read?path={encoded}/{HOST_ONLY.name}")
    assert answer.status_code in (404, 409, 422), answer.text


@pytest.mark.parametrize(
    "name",
    [
        "a;b",
        "--privileged",
        "-v",
        "$(id)",
        "`id`",
        "new\nline",
        "x" * 255,
        "\uff43\uff4f\uff4e\uff46",
        "\N{RIGHT-TO-LEFT OVERRIDE}fdp.exe",
        "'\"",
        "%s%n",
        "...",
    ],
)
async def test_a_name_is_a_name_and_nothing_else(path: FilePath, name: str) -> None:
    body = {"path": f"/names/{name}", "content": name, "create_parents": True}
    assert (await path.call("POST", "write", json=body)).status_code == 200
    assert os.listdir(path.root / "names") == [name]
    assert (await path.call("GET", "read", params={"path": f"/names/{name}"})).json()["content"] == name
    archived = await path.call("GET", "archive", params={"path": f"/names/{name}"})
    with tarfile.open(fileobj=io.BytesIO(archived.content)) as archive:
        assert archive.getnames() == [name]
    assert (await path.call("DELETE", "delete", params={"path": f"/names/{name}"})).status_code == 200
    assert os.listdir(path.root / "names") == []


@pytest.mark.parametrize("name", ["x" * 256, "nul\0", "\udcff"])
async def test_what_can_be_no_name_is_refused(path: FilePath, name: str) -> None:
    body = (
        b'{"path": "/'
        + name.encode("utf-8", "surrogatepass").replace(b"\0", b"\\u0000")
        + b'", "content": ""}'
    )
    answer = await path.call("POST", "write", content=body)
    assert answer.status_code == 422, answer.text


async def test_devices_fifos_and_sockets_are_refused_at_once(path: FilePath) -> None:
    folder = path.root / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    os.mknod(folder / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (folder / "link").symlink_to("zero")
    for name in ("fifo", "disk", "zero", "link"):
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "read", {"params": {"path": f"/special/{name}"}}),
            ("POST", "write", {"json": {"path": f"/special/{name}", "content": ""}}),
        ]
        for method, call, options in calls:
            async with asyncio.timeout(10):
                answer = await path.call(method, call, **options)
            assert answer.status_code == 409, (name, answer.text)
            assert "only regular files" in answer.json()["detail"]


async def test_a_file_of_50_gb_costs_10_mb(path: FilePath) -> None:
    with (path.root / "sparse").open("wb") as file:
        file.truncate(50 << 30)
    answer = await path.call("GET", "read", params={"path": "/sparse", "encoding": "base64"})
    found = answer.json()
    assert (len(base64.b64decode(found["content"])), found["size"]) == (10 << 20, 50 << 30)
    too_much = await path.call("GET", "read", params={"path": "/sparse", "limit": 50 << 30})
    assert too_much.status_code == 422


async def test_a_crowded_folder_costs_one_page(tmp_path: Path) -> None:
    """Names of a hundred bytes, a hundred thousand of them: 10 MB and more if they were held."""
    for number in range(100_000):
        os.mknod(tmp_path / f"{number:0100}")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        tracemalloc.start()
        page = list_folder(RootedFs(root, KernelMounts()), "/")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(root)
    assert (page.total, len(page.entries), page.entries[0].name) == (100_000, 1000, "0" * 100)
    assert peak_bytes < 5 << 20


async def test_writes_that_race_deletes_leave_whole_files_or_none(path: FilePath) -> None:
    (path.root / "race").mkdir()

    async def write() -> None:
        for _ in range(30):
            body = {"path": "/race/d/file", "content": "x" * 100_000, "create_parents": True}
            answer = await path.call("POST", "write", json=body)
            assert answer.status_code in (200, 404, 409), answer.text

    async def delete() -> None:
        for _ in range(30):
            answer = await path.call("DELETE", "delete", params={"path": "/race/d", "recursive": "true"})
            assert answer.status_code in (200, 404, 409), answer.text

    await asyncio.gather(write(), delete())
    left = [file for file in (path.root / "race").rglob("*") if file.is_file()]
    assert all(file.name == "file" and file.stat().st_size == 100_000 for file in left)


async def test_a_hostile_archive_stays_in_the_workload(path: FilePath) -> None:
    (path.root / "into").mkdir(exist_ok=True)
    before = set(os.listdir("/"))
    upwards = "../" * 20 + "escaped"
    for content in (
        _tar(upwards),
        _tar("/escaped"),
        _tar("l", kind=tarfile.SYMTYPE, target="../../../../../../..")[:512] + _tar("l/escaped"),
        _tar("h", kind=tarfile.LNKTYPE, target="../" * 20 + str(HOST_ONLY).lstrip("/")),
        b"no tar stream" * 100,
        b"",
    ):
        await path.call("PUT", "archive", params={"path": "/into"}, content=content)
        assert set(os.listdir("/")) == before
    assert HOST_ONLY.stat().st_nlink == 1
    assert not (path.root / "into/h").exists()
