"""Small images made on this machine: a static busybox in an otherwise empty image, and single programs."""

import contextlib
import io
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import import_tree, tag_image
from kohakuriver.models.errors import NotFound


def busybox_tree(
    *, applets: tuple[str, ...] = ("sh", "sleep", "cat", "env", "echo", "ls", "tail", "stty")
) -> bytes:
    """Tar archive of a root file system with busybox and links for the applets; none: no shell either."""
    program = shutil.which("busybox")
    assert program, "busybox-static is needed"
    return tree(
        {"bin/busybox": Path(program).read_bytes()}, links={f"bin/{name}": "busybox" for name in applets}
    )


def tree(files: dict[str, bytes], links: dict[str, str] | None = None, mode: int = 0o755) -> bytes:
    """Tar archive with the given executables and symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        for name, destination in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, destination
            archive.addfile(entry)
    return buffer.getvalue()


async def import_bytes(api: DockerApi, archive: bytes, reference: str, *changes: str) -> None:
    """Make an image of the archive under `repository:tag`."""
    image_id = await import_tree(api, chunks(archive), changes, lambda _sentence: None)
    repository, tag = reference.rsplit(":", 1)
    await tag_image(api, image_id, repository, tag)


async def remove_container(api: DockerApi, name: str) -> None:
    """Remove it whatever it does; none there is fine."""
    with contextlib.suppress(NotFound):
        await api.json("DELETE", f"containers/{name}", params={"force": "true", "v": "true"})


async def chunks(data: bytes, size: int = 1 << 18) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
