"""The files that VPSs see read-only: the tools that all share, and each one's own for its sshd.

Tasks of other users than root see the tools too. These lie in `<state dir>/session-tools`, a VPS's SSH
files in `ssh` of its folder (`network_files`). Files are replaced as a whole, so what runs from an old one
goes on. All functions block.
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.private_files import replace_file
from kohakuriver.runner.engines.docker.inside.network_files import NetworkFiles
from kohakuriver.runner.engines.docker.inside.of_vps import (
    BUSYBOX,
    SSH_SETUP,
    tools_mount,
    vps_mounts,
)
from kohakuriver.runner.engines.docker.sandboxes.image import find_pause_binary

_SCRIPT = Path(__file__).with_name("ssh_setup.sh")


class VpsFiles:
    def __init__(self, state_dir: Path, files: NetworkFiles) -> None:
        self._tools = state_dir / "session-tools"
        self._files = files
        self._installing = threading.Lock()

    def prepare(self, task_id: TaskId, root: tuple[int, int]) -> tuple[Mount, ...]:
        """Have the tools and the VPS's folder there; return the mounts. Raises OSError, EngineFault.

        `root`: user and group on the node of the VPS's root, whom its sshd wants these files to be of.
        """
        self.install_tools()
        folder = self._ssh_folder(task_id)
        _make_folder(folder)
        os.chown(folder, *root)
        return vps_mounts(self._tools, folder)

    def tools(self) -> Mount:
        """Have the tools there for a task; return their mount. Raises like `prepare`."""
        self.install_tools()
        return tools_mount(self._tools)

    def install_tools(self) -> None:
        """Bring them to this version; VPSs that run see the new ones."""
        with self._installing:
            _make_folder(self._tools)
            _put(self._tools / Path(BUSYBOX).name, find_pause_binary().read_bytes(), 0o755)
            _put(self._tools / Path(SSH_SETUP).name, _SCRIPT.read_bytes(), 0o644)

    def write_ssh(self, task_id: TaskId, texts: Mapping[str, str], root: tuple[int, int]) -> None:
        """Put the files for sshd in their place, closed to everybody but root; raises OSError."""
        folder = self._ssh_folder(task_id)
        _make_folder(folder)
        os.chown(folder, *root)
        for name, text in texts.items():
            _put(folder / name, text.encode(), 0o600, root)

    def _ssh_folder(self, task_id: TaskId) -> Path:
        return self._files.folder_of(task_id) / "ssh"


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    # sshd takes no files from a folder that others may write to.
    path.chmod(0o755)


def _put(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    owner = owner or (os.geteuid(), os.getegid())
    with contextlib.suppress(FileNotFoundError):
        there = path.stat()
        if path.read_bytes() == content and (there.st_uid, there.st_gid) == owner:
            return
    replace_file(path, content, mode, owner)
