"""The image of sandboxes: static programs in an otherwise empty file system, made by the runner itself.

One is busybox, which sleeps, or where there is a tunnel client starts that again whenever it ends. The tag is
the hash of what the image holds, so that it is made once per content and an old one is never taken for the
present one.
"""

import hashlib
import io
import json
import shutil
import tarfile
import time
from contextlib import suppress
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import remove_image
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import PLACE
from kohakuriver.runner.static_program import is_static_elf

REPOSITORY = "kohakuriver/sandbox"
# busybox acts by the name it is called by
PAUSE_COMMAND = ("/sleep", "2147483647")
CLIENT_COMMAND = ("/sh", "/keep-client")
# The sandbox's first process. With it the workload's network would end, so no error ends it: `command eval`
# goes on after any, also where the node has no process left to give. The pause needs no process either: it
# waits at a pipe to which nobody writes. A client that lasted a minute is started again at once, others after
# longer and longer pauses.
_KEEP_CLIENT = f"""\
exec </dev/null >/dev/null 2>&1
exec 3<<END
END
exec 4<>/proc/self/fd/3 3<&-
pause=0 began=0 ended=0
once='
    read -r began rest </proc/uptime
    /tunnel-client {PLACE} 4<&-
    read -r ended rest </proc/uptime
    [ $((${{ended%%.*}} - ${{began%%.*}})) -lt 60 ] || pause=0
'
while :; do
    command eval "$once"
    [ $pause = 0 ] || read -r -t $pause rest <&4
    pause=$((pause * 2 + 1))
    [ $pause -le 30 ] || pause=30
done
"""
_OLD_SECONDS = 24 * 3600.0
_CANDIDATES = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


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


def image_tar(busybox: bytes, client: bytes | None = None) -> bytes:
    """File system of the image; the same bytes for the same programs. `client` None: it only sleeps."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "sleep", busybox)
        if client is not None:
            again = tarfile.TarInfo("sh")
            again.type, again.linkname, again.mode = tarfile.LNKTYPE, "sleep", 0o755
            tar.addfile(again)
            _add(tar, "keep-client", _KEEP_CLIENT.encode())
            _add(tar, "tunnel-client", client)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))


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


async def remove_old_images(api: DockerApi, present: str) -> None:
    """Remove those of other contents that no container uses.

    One that is younger than a day may be the present one of another runner on this engine, which has no
    sandbox just then. An older one of such a runner is made again when it makes a sandbox.
    """
    filters = json.dumps({"reference": [f"{REPOSITORY}:*"]})
    for row in await api.json("GET", "images/json", params={"filters": filters}):
        if row["Created"] > time.time() - _OLD_SECONDS:
            continue
        for reference in row["RepoTags"]:
            if reference != present:
                with suppress(Conflict):
                    await remove_image(api, reference)
