"""Root file systems made on this machine, for a host that reaches no image registry.

A Debian or Ubuntu tree by `mmdebstrap` from the machine's own release and package sources, or a busybox tree
only from the machine's static busybox.
"""

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.dockerapi.images import Progress
from kohakuriver.models.errors import EngineFault, Unavailable
from kohakuriver.oom_score import expendable

_PACKAGES = "openssh-server,procps,python3-minimal,rsync,vim-tiny"
"""What tasks and people in VPSs expect beside the base system."""
_END_SECONDS = 15
_PROXY = re.compile(r'^Acquire::\S*Proxy\S* ".*";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DebianRecipe:
    """What a tree is made of; equal recipes make equal trees but for the packages' newest versions.

    `packages`: beside the base system, with commas between them.
    """

    suite: str
    sources: str
    """Package sources, in the deb822 or the one-line form, told apart by `sources_suffix`."""
    sources_suffix: str
    proxy: str
    packages: str = _PACKAGES


def debian_recipe(etc: Path = Path("/etc")) -> DebianRecipe:
    """Read the machine's release and sources; raises Unavailable where no such tree can be made."""
    release = dict(
        line.split("=", 1) for line in (etc / "os-release").read_text().splitlines() if "=" in line
    )
    suite = release.get("VERSION_CODENAME", "").strip('"')
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0 or not suite:
        raise Unavailable("a Debian tree needs root, a Debian or Ubuntu machine, and the program mmdebstrap")
    folder = etc / "apt/sources.list.d"
    proxy = _proxy_settings()
    deb822 = _paragraphs_of(suite, sorted(folder.glob("*.sources")))
    if deb822:
        return DebianRecipe(suite, "\n\n".join(deb822) + "\n", ".sources", proxy)
    lines = _lines_of(suite, [etc / "apt/sources.list", *sorted(folder.glob("*.list"))])
    if not lines:
        raise Unavailable(f"the package sources of this machine name no suite {suite}")
    return DebianRecipe(suite, "\n".join(lines) + "\n", ".list", proxy)


def _proxy_settings() -> str:
    """What apt on this machine is told about proxies, in its own form."""
    dump = subprocess.run(
        expendable("apt-config", "dump", "Acquire"), capture_output=True, text=True, check=False, timeout=10
    )
    return "".join(f"{line}\n" for line in _PROXY.findall(dump.stdout))


def _paragraphs_of(suite: str, files: list[Path]) -> list[str]:
    """Paragraphs for the release itself; other repositories do not belong into a base system."""
    wanted = re.compile(rf"^Suites:.*(?<![\w-]){re.escape(suite)}(?![\w])", re.MULTILINE)
    paragraphs = (part.strip() for file in files for part in re.split(r"\n\s*\n", file.read_text()))
    return [part for part in paragraphs if wanted.search(part) and "Enabled: no" not in part]


def _lines_of(suite: str, files: list[Path]) -> list[str]:
    wanted = re.compile(rf"^deb (\[[^]]*\] )?\S+ {re.escape(suite)}(-[a-z]+)?[ /]")
    lines = (line.strip() for file in files if file.is_file() for line in file.read_text().splitlines())
    return [line for line in lines if wanted.match(line)]


async def make_debian_tree(recipe: DebianRecipe, archive: Path, on_progress: Progress) -> None:
    """Write the tree's tar archive; about half a minute. Ended early, it leaves at most that file."""
    with tempfile.TemporaryDirectory(prefix="kohakuriver-tree-") as folder:
        argv = await asyncio.to_thread(_mmdebstrap, recipe, Path(folder), archive)
        process = await asyncio.create_subprocess_exec(
            *expendable(*argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"TMPDIR": folder, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            said = await _follow(process, on_progress)
            if await process.wait() != 0:
                raise EngineFault(f"mmdebstrap failed: {' '.join(said[-3:])}")
        finally:
            await asyncio.shield(_end(process))


def _mmdebstrap(recipe: DebianRecipe, folder: Path, archive: Path) -> list[str]:
    sources = folder / f"machine{recipe.sources_suffix}"
    sources.write_text(recipe.sources)
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", "--format=tar", f"--include={recipe.packages}"]
    if recipe.proxy:
        (folder / "proxy.conf").write_text(recipe.proxy)
        argv.append(f"--aptopt={folder}/proxy.conf")
    # Documentation and translations are a fifth of the tree and of no use in a workload.
    unused = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in unused]
    # Keys that many machines share are secret on none; VPSs have their own.
    argv.append('--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*')
    return [*argv, recipe.suite, str(archive), str(sources)]


async def _follow(process: asyncio.subprocess.Process, on_progress: Progress) -> list[str]:
    """Report the program's steps until it has said all; return its last lines."""
    said: list[str] = []
    if process.stderr is not None:
        async for line in process.stderr:
            text = line.decode("utf-8", "replace").strip()
            said = [*said[-20:], text] if text else said
            if text.startswith("I: "):
                on_progress(f"making a Debian tree: {text[3:]}")
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program and all that it started; on SIGTERM it unmounts and removes what it made."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()


def busybox_tree(program: Path | None = None) -> bytes:
    """Tar archive of a system of one static busybox; raises Unavailable where the machine has none."""
    found = program or Path(shutil.which("busybox") or "/bin/busybox")
    content = found.read_bytes() if found.is_file() else b""
    # A program that needs a dynamic loader names it near its beginning.
    if not content.startswith(b"\x7fELF") or b"/ld-" in content[:4096]:
        raise Unavailable("this machine has no static busybox (Debian package busybox-static)")
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            _add(archive, folder, tarfile.DIRTYPE, mode)
        _add(archive, "bin/busybox", tarfile.REGTYPE, 0o755, content)
        listed = subprocess.run(
            expendable(str(found), "--list"), capture_output=True, text=True, check=True, timeout=10
        )
        for applet in listed.stdout.split():
            if applet != "busybox":
                _add(archive, f"bin/{applet}", tarfile.LNKTYPE, 0o755, link="bin/busybox")
        for path, text in files.items():
            _add(archive, path, tarfile.REGTYPE, 0o644, text)
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, path: str, kind: bytes, mode: int, content: bytes = b"", *, link: str = ""
) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    archive.addfile(entry, io.BytesIO(content))
