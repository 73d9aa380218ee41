"""Each workload's own /etc/hosts, /etc/resolv.conf and /etc/hostname.

Without them it would get the sandbox's, and what it writes there would meet the next workload. They live in
`<state dir>/net/<task id>/` from before the container is made until after it is removed, as does what else is
kept for a workload in that folder.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kohakuriver.models.ids import TaskId
from kohakuriver.models.mounts import Mount

# Docker's own resolver, present in every container of a network that is not the default bridge.
_RESOLVER = "127.0.0.11"


_IPV6 = "::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"


def hosts_text(hostname: str, address: str, *, ipv6: bool) -> str:
    """`ipv6`: whether there is an ::1; some programs try no other address of localhost than that."""
    return f"127.0.0.1\tlocalhost\n{_IPV6 if ipv6 else ''}{address}\t{hostname}\n"


def resolv_text(node_resolv: str) -> str:
    """The node's search domains with the engine's resolver, which asks the node's name servers."""
    search = [line for line in node_resolv.splitlines() if line.split()[:1] in (["search"], ["domain"])]
    return "\n".join([*search, f"nameserver {_RESOLVER}", "options ndots:0", ""])


class NetworkFiles:
    def __init__(self, state_dir: Path, node_resolv: Path = Path("/etc/resolv.conf")) -> None:
        self._root = state_dir / "net"
        self._node_resolv = node_resolv

    def write(self, task_id: TaskId, hostname: str, address: str, *, ipv6: bool) -> tuple[Mount, ...]:
        """Make the files of a workload; return the mounts that put them in place."""
        texts = {
            "/etc/hosts": hosts_text(hostname, address, ipv6=ipv6).encode(),
            "/etc/hostname": f"{hostname}\n".encode(),
            "/etc/resolv.conf": resolv_text(self._read_node_resolv()).encode(),
        }
        return self.write_more(task_id, texts)

    def write_more(
        self, task_id: TaskId, contents: Mapping[str, bytes], mode: int = 0o644
    ) -> tuple[Mount, ...]:
        """The same for other files, by the paths that they have in the container."""
        folder = self.folder_of(task_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts = []
        for place, content in contents.items():
            path = folder / PurePosixPath(place).name
            path.write_bytes(content)
            path.chmod(mode)
            mounts.append(Mount(str(path), place, read_only=mode != 0o644))
        return tuple(mounts)

    def folder_of(self, task_id: TaskId) -> Path:
        return self._root / str(task_id)

    def remove(self, task_id: TaskId) -> None:
        shutil.rmtree(self.folder_of(task_id), ignore_errors=True)

    def remove_all_but(self, kept: set[TaskId]) -> None:
        if self._root.is_dir():
            names = {str(task_id) for task_id in kept}
            for folder in self._root.iterdir():
                if folder.name not in names:
                    shutil.rmtree(folder, ignore_errors=True)

    def _read_node_resolv(self) -> str:
        try:
            return self._node_resolv.read_text()
        except FileNotFoundError:
            return ""
