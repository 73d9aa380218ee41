"""Each workload's own /etc/hosts, /etc/resolv.conf and /etc/hostname.

Without them it would get the sandbox's, and what it writes there would meet the next workload. They live in
`<state dir>/net/<task id>/` from before the container is made until after it is removed, as does what else is
kept for a workload in that folder. Root of a workload can write them. What is read back is bounded, and no
link is followed on the way. What was written last stands beside those of a VPS: what is different in
them is its users' doing (`kept_edits`). All functions block.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kohakuriver.files.system.id_maps import IdMaps
from kohakuriver.files.system.linkless import NotOurFile, folder_below, open_file_in
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.private_files import replace_file
from kohakuriver.runner.engines.docker.inside.kept_edits import Edit, Edits, renewed
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox

# Docker's own resolver, present in every container of a network that is not the default bridge.
_RESOLVER = "127.0.0.11"
_HOSTS, _HOSTNAME, _RESOLV = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
PLACES = frozenset((_HOSTS, _HOSTNAME, _RESOLV))
_RECORD = "written.json"
_MOST_BYTES = 1 << 20
"""Of a file that is brought to a new address while its VPS stays: what is larger stays as it is."""
_OPEN_MODE = 0o644

_IPV6 = "::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"


def hosts_text(hostname: str, address: str, *, ipv6: bool) -> str:
    """`ipv6`: whether there is an ::1; some programs try no other address of localhost than that."""
    return f"127.0.0.1\tlocalhost\n{_IPV6 if ipv6 else ''}{address}\t{hostname}\n"


def resolv_text(node_resolv: str) -> str:
    """The node's search domains with the engine's resolver, which asks the node's name servers."""
    search = [line for line in node_resolv.splitlines() if line.split()[:1] in (["search"], ["domain"])]
    return "\n".join([*search, f"nameserver {_RESOLVER}", "options ndots:0", ""])


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What the files of a workload say, and who they belong to."""

    hostname: str
    address: str
    ipv6: bool
    root: tuple[int, int]

    @classmethod
    def of(cls, sandbox: Sandbox) -> "NetworkFacts":
        """Root of a workload is another user on the node where the engine maps users."""
        root = IdMaps.of_pid(sandbox.mark.pid if sandbox.mark is not None else None).root
        return cls(sandbox.hostname, sandbox.address, sandbox.has_ipv6_loopback, root)


class NetworkFiles:
    def __init__(self, state_dir: Path, node_resolv: Path = Path("/etc/resolv.conf")) -> None:
        self._root = state_dir / "net"
        self._node_resolv = node_resolv

    def write(self, task_id: TaskId, facts: NetworkFacts) -> tuple[Mount, ...]:
        """Make the files of a workload; return the mounts that put them in place."""
        return self.write_more(task_id, self._texts(facts), root=facts.root)

    def write_for_vps(self, task_id: TaskId, facts: NetworkFacts, edits: Edits) -> tuple[Mount, ...]:
        """The same, with what users changed in those of an earlier run."""
        texts = self._texts(facts)
        with_edits = {p: edits[p].put_on(text) if p in edits else text for p, text in texts.items()}
        mounts = self.write_more(task_id, with_edits, root=facts.root)
        self._note(task_id, texts)
        return mounts

    def edits(self, task_id: TaskId, facts: NetworkFacts | None) -> Edits:
        """What users changed; `facts` serve where an earlier version noted nothing down."""
        before = self._noted(task_id) or ({} if facts is None else self._texts(facts))
        found = {place: Edit(text, self._read(task_id, place, text)) for place, text in before.items()}
        return {place: edit for place, edit in found.items() if edit.now != edit.before}

    def renew(self, task_id: TaskId, before: NetworkFacts, facts: NetworkFacts) -> None:
        """Bring the files of a VPS, which may run, to other facts; what users changed stays."""
        noted, texts = self._noted(task_id) or self._texts(before), self._texts(facts)
        for place, text in texts.items():
            was = noted.get(place, text)
            now = self._read(task_id, place, was)
            if now is not None:
                self._put(task_id, place, renewed(now, was, text))
        self._note(task_id, texts)

    def write_more(
        self,
        task_id: TaskId,
        contents: Mapping[str, bytes],
        mode: int = _OPEN_MODE,
        *,
        root: tuple[int, int] = (0, 0),
    ) -> tuple[Mount, ...]:
        """The same for other files, by the paths that they have in the container."""
        folder = self.folder_of(task_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts = []
        for place, content in contents.items():
            path = folder / PurePosixPath(place).name
            path.write_bytes(content)
            path.chmod(mode)
            if root != (0, 0):
                os.chown(path, *root)
            mounts.append(Mount(str(path), place, read_only=mode != _OPEN_MODE))
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

    def _texts(self, facts: NetworkFacts) -> dict[str, bytes]:
        return {
            _HOSTS: hosts_text(facts.hostname, facts.address, ipv6=facts.ipv6).encode(),
            _HOSTNAME: f"{facts.hostname}\n".encode(),
            _RESOLV: resolv_text(self._read_node_resolv()).encode(),
        }

    def _note(self, task_id: TaskId, texts: Mapping[str, bytes]) -> None:
        record = {place: text.decode(errors="surrogateescape") for place, text in texts.items()}
        replace_file(self.folder_of(task_id) / _RECORD, json.dumps(record).encode())

    def _noted(self, task_id: TaskId) -> dict[str, bytes]:
        """What we wrote last; empty where that is not known."""
        try:
            record = json.loads((self.folder_of(task_id) / _RECORD).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {place: text.encode(errors="surrogateescape") for place, text in record.items()}

    def _read(self, task_id: TaskId, place: str, before: bytes) -> bytes | None:
        """What stands there; None for more than is ever kept. A file that is no longer ours is as it was."""
        with suppress(FileNotFoundError, NotOurFile), folder_below(self._root, (str(task_id),)) as folder:
            file = open_file_in(folder, PurePosixPath(place).name, os.O_RDONLY)
            with os.fdopen(file, "rb") as reader:
                content = reader.read(_MOST_BYTES + 1)
            return content if len(content) <= _MOST_BYTES else None
        return before

    def _put(self, task_id: TaskId, place: str, content: bytes) -> None:
        """In place: what is mounted is the file itself, and no other of its name."""
        with folder_below(self._root, (str(task_id),)) as folder:
            file = open_file_in(folder, PurePosixPath(place).name, os.O_WRONLY)
            with os.fdopen(file, "wb") as writer:
                writer.write(content)
                writer.truncate()

    def _read_node_resolv(self) -> str:
        try:
            return self._node_resolv.read_text()
        except FileNotFoundError:
            return ""
