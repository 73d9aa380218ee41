"""The image of sandboxes: one static binary in an otherwise empty file system, made by the runner itself.

Its tag is the hash of what it holds, so that it is made once per content and an old one is never taken for
the present one.
"""

import hashlib
import io
import shutil
import struct
import tarfile
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, NotFound

REPOSITORY = "kohakuriver/sandbox"
# busybox acts by the name it is called by
PAUSE_COMMAND = ("/sleep", "2147483647")
_CANDIDATES = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_PT_INTERP = 3


def is_static_elf(binary: bytes) -> bool:
    """Tell whether a program needs no loader: an ELF file without a PT_INTERP program header."""
    if len(binary) < 64 or binary[:4] != b"\x7fELF":
        return False
    order = "<" if binary[5] == 1 else ">"
    is_64 = binary[4] == 2
    offset = struct.unpack_from(order + ("Q" if is_64 else "I"), binary, 32 if is_64 else 28)[0]
    size, count = struct.unpack_from(order + "HH", binary, 54 if is_64 else 42)
    return all(
        struct.unpack_from(order + "I", binary, offset + number * size)[0] != _PT_INTERP
        for number in range(count)
    )


def find_pause_binary() -> Path:
    """Return a static busybox of this machine; raises EngineFault that says what to install."""
    on_path = shutil.which("busybox")
    for path in (*_CANDIDATES, *([Path(on_path)] if on_path else [])):
        if path.is_file() and is_static_elf(path.read_bytes()):
            return path
    raise EngineFault(
        "no static busybox was found on this machine, and sandboxes are made of it; "
        "install the package busybox-static (apt-get install busybox-static)"
    )


def image_tar(binary: bytes) -> bytes:
    """File system of the image; the same bytes for the same binary."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("sleep")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
    return buffer.getvalue()


async def ensure_sandbox_image(api: DockerApi, content: bytes) -> str:
    """Return the image's reference, importing it where the engine lacks it."""
    tag = hashlib.sha256(content).hexdigest()[:16]
    reference = f"{REPOSITORY}:{tag}"
    try:
        await api.json("GET", f"images/{reference}/json")
    except NotFound:
        async with api.stream(
            "POST",
            "images/create",
            params={"fromSrc": "-", "repo": REPOSITORY, "tag": tag},
            data=io.BytesIO(content),
            headers={"Content-Type": "application/x-tar"},
        ) as response:
            answer = (await response.read()).decode(errors="replace")
        if '"error"' in answer:
            raise EngineFault(f"the engine did not take the sandbox image: {answer.strip()[:500]}") from None
    return reference
