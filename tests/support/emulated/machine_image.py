"""The disk of the emulated machine: its tree with the wheel of this checkout and a busybox environment.

Trees and disks are kept under `.cache/system`, each under a key of all that it follows from; those of other
keys go. Nothing is mounted to make them, so that it works where there are no loop devices.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.cluster import write_busybox_tarball
from support.debian_tree import CACHE
from support.emulated import guest_agent, machine_settings
from support.emulated.machine_settings import AGENT, AGENT_UNIT_NAME, FILES, MASKED
from support.emulated.machine_tree import ROOT, VENV, in_tree, make_tree, recipe, tree_key

_DISK_SIZE = "6G"
_ENVIRONMENTS = "root/.kohakuriver/shared/kohakuriver-containers"
_SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class MachineImage:
    disk: Path
    kernel: Path
    initrd: Path


def machine_image(cache: Path = CACHE / "system") -> MachineImage:
    """The image of this checkout, made now if it is not there.

    Raises Unavailable on a machine that cannot make one.
    """
    wanted = recipe()
    tree = cache / f"tree-{tree_key(wanted)}"
    folder = cache / f"image-{_image_key(tree.name)}"
    with _one_at_a_time(cache):
        if not folder.exists():
            if not tree.exists():
                _remove_others(cache, "tree-*", tree)
                with _draft(tree) as draft:
                    make_tree(wanted, draft)
            _remove_others(cache, "image-*", folder)
            with _draft(folder) as draft:
                draft.mkdir()
                _make_image(tree, draft)
    return MachineImage(folder / "disk", folder / "kernel", folder / "initrd")


def _make_image(tree: Path, folder: Path) -> None:
    whole = folder / "tree"
    # Links instead of copies: what is added here are new files, and none of the tree's is changed.
    subprocess.run(["cp", "-al", str(tree), str(whole)], check=True)
    _set_up(whole)
    _install_wheel(whole, folder)
    write_busybox_tarball(whole / _ENVIRONMENTS, "kohakuriver-base")
    (whole / "root/.kohakuriver").chmod(0o700)
    for name in ("kernel", "initrd"):
        found = sorted((whole / "boot").glob(f"{'vmlinuz' if name == 'kernel' else 'initrd.img'}-*"))
        shutil.copy(found[-1], folder / name)
    disk = folder / "disk"
    argv = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(whole), str(disk), _DISK_SIZE]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(whole)


def _set_up(whole: Path) -> None:
    agent = Path(guest_agent.__file__).read_text()
    for place, text in {**FILES, AGENT.lstrip("/"): agent}.items():
        path = whole / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it is the tree's own file
        path.write_text(text)
    in_tree(whole, "systemctl", "enable", AGENT_UNIT_NAME, "docker.service")
    in_tree(whole, "systemctl", "mask", *MASKED)


def _install_wheel(whole: Path, folder: Path) -> None:
    """As `pip install` of a wheel does on a real machine, with the scripts that belong to it."""
    wheels = folder / "wheels"
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*argv, "-w", str(wheels), str(ROOT)], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    shutil.copy(wheel, whole / "tmp" / wheel.name)
    in_tree(whole, f"{VENV}/bin/pip", "install", "-q", "--no-deps", "--no-index", f"/tmp/{wheel.name}")
    (whole / "tmp" / wheel.name).unlink()
    shutil.rmtree(wheels)


def _image_key(tree: str) -> str:
    found = hashlib.sha256(tree.encode())
    own = (Path(str(module.__file__)) for module in (guest_agent, machine_settings))
    for source in (Path(__file__), *own, *(ROOT / name for name in _SOURCES)):
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_others(cache, "draft-*")  # of runs that were killed
        yield


@contextlib.contextmanager
def _draft(whole: Path) -> Iterator[Path]:
    """A path that becomes the wanted one when all of it is there, and goes when it fails."""
    draft = whole.with_name(f"draft-{whole.name}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        draft.rename(whole)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _remove_others(cache: Path, pattern: str, kept: Path | None = None) -> None:
    for found in cache.glob(pattern):
        if found != kept:
            shutil.rmtree(found)
