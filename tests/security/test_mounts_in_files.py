"""Renaming, replacing and deleting what is mounted in a workload, from outside it (line 17 of the threats).

Inside, the kernel answers EBUSY. The runner works from other mounts than the workload's, where it does not.
"""

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.spec.mounts import Mount
from support.cluster.file_path import FilePath, file_path
from support.engines.labs import docker_lab

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

MOUNTED = ("/m/folder", "/m/deep/down/file", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")


@pytest.fixture(scope="module")
async def path(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FilePath]:
    """A workload with a folder at /m, on which a folder and a file of others are mounted."""
    sources = tmp_path_factory.mktemp("sources")
    (sources / "m").mkdir()
    (sources / "folder").mkdir()
    (sources / "folder/kept").write_text("kept")
    (sources / "file").write_text("kept")
    mounts = (
        Mount(str(sources / "m"), "/m"),
        Mount(str(sources / "folder"), "/m/folder"),
        Mount(str(sources / "file"), "/m/deep/down/file"),
    )
    async with (
        docker_lab(tmp_path_factory.mktemp("engine"), pool_size=1) as lab,
        file_path(tmp_path_factory.mktemp("host"), lab, mounts=mounts) as ready,
    ):
        yield ready


def _whole(path: FilePath) -> dict[str, Any]:
    """Where each mount is, and what its entry is below it as well as on it."""
    pid = path.root.parent.name
    table = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in table]
    return {place: (place in places, (path.root / place[1:]).stat().st_ino) for place in ("/m", *MOUNTED)}


@pytest.mark.parametrize("target", ["/m", *MOUNTED])
async def test_what_is_mounted_is_neither_renamed_nor_replaced_nor_deleted(
    path: FilePath, target: str
) -> None:
    before = _whole(path)
    (path.root / "own").write_text("own")
    (path.root / "m/own").write_text("own")
    folder = target.rpartition("/")[0]
    own = "/m/own" if target.startswith("/m/") else "/own"
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "rename", {"json": {"source": target, "destination": f"{folder}/moved"}}),
        ("POST", "rename", {"json": {"source": own, "destination": target, "overwrite": True}}),
        ("POST", "rename", {"json": {"source": own, "destination": target}}),
        ("DELETE", "delete", {"params": {"path": target, "recursive": "true"}}),
    ]
    if (path.root / target[1:]).is_file():
        calls.append(("POST", "write", {"json": {"path": target, "content": "replaced"}}))
    for method, name, options in calls:
        answer = await path.call(method, name, **options)
        assert answer.status_code == 409, (name, answer.text)
        assert _whole(path) == before, name
        assert "mount" in answer.json()["detail"], (name, answer.text)


@pytest.mark.parametrize("target", ["/m/folder", "/m/deep", "/m/deep/down"])
async def test_a_folder_with_a_mount_in_it_is_not_deleted_past_the_mount(path: FilePath, target: str) -> None:
    before = _whole(path)
    answer = await path.call("DELETE", "delete", params={"path": target, "recursive": "true"})
    assert answer.status_code == 409, answer.text
    assert _whole(path) == before
    assert (path.root / "m/folder/kept").read_text() == "kept"
    assert (path.root / "m/deep/down/file").read_text() == "kept"


@pytest.mark.parametrize(("folder", "name"), [("/etc", "hosts"), ("/m", "folder"), ("/m/deep/down", "file")])
async def test_an_archive_does_not_replace_what_is_mounted(path: FilePath, folder: str, name: str) -> None:
    before = _whole(path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, "/elsewhere"
        archive.addfile(info)
    await path.call("PUT", "archive", params={"path": folder}, content=buffer.getvalue())
    assert _whole(path) == before
