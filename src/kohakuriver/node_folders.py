"""Which node this machine is: private folders of runners, each with a mark of the machine that it is of.

A node is known by its key, and its key lies in the folder with its name. A machine that was renamed is the
node that it was: with a new key under a new name it would offer all its cores and GPUs a second time, and
what it runs would be nobody's. Homes may be shared between machines, so there is a mark.

Rules: the folder with the machine's host name comes first, whatever its mark says; a mark is written at each
start. Facts about a machine are kept as hashes, since its ids are not for others to know.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kohakuriver.private_files import read_private, write_private

IDENTITY_FILE = "identity"
_MARK_FILE = "machine"
_MACHINE_ID = "etc/machine-id"
_PRODUCT_ID = "sys/class/dmi/id/product_uuid"
_NETWORK_CARDS = "sys/class/net"


class Machine(msgspec.Struct, frozen=True):
    """`machine_id`: of its installation; `product_id`: of its board, which only root can read; `cards`: of
    its network. Empty where it is not known.

    Copies of a virtual machine often have the first in common, and not the others.
    """

    machine_id: str = ""
    product_id: str = ""
    cards: list[str] = []

    def is_same_as(self, other: "Machine") -> bool:
        if not self.machine_id or self.machine_id != other.machine_id:
            return False
        if self.product_id and other.product_id:
            return self.product_id == other.product_id
        return not (self.cards and other.cards) or not set(self.cards).isdisjoint(other.cards)


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """Where this machine's runner keeps its state; its name is the node's."""

    path: Path

    @property
    def node(self) -> str:
        return self.path.name


def runner_folders() -> Path:
    """The folder of all of this user's runners."""
    return Path.home() / ".kohakuriver" / "runner"


def this_machine(root: Path = Path("/")) -> Machine:
    """`root`: of the file system that tells."""
    cards = []
    for card in sorted((root / _NETWORK_CARDS).glob("*/device")):
        cards.append(_hashed(card.parent / "address"))
    return Machine(_hashed(root / _MACHINE_ID), _hashed(root / _PRODUCT_ID), [card for card in cards if card])


def folder_of_this_machine(hostname: str, folders: Path, machine: Machine) -> NodeFolder:
    """The folder with the machine's name, else the newest with its mark, else a new one with its name."""
    own = folders / hostname
    if os.path.lexists(own / IDENTITY_FILE):
        return NodeFolder(own)
    marked = [path for path in _folders_with_key(folders) if _mark_of(path).is_same_as(machine)]
    return NodeFolder(max(marked, key=lambda path: (path / _MARK_FILE).stat().st_mtime, default=own))


def mark_folder(folder: NodeFolder, machine: Machine) -> None:
    """Write down that the folder is this machine's; it must exist."""
    write_private(folder.path / _MARK_FILE, msgspec.json.encode(machine))


def _folders_with_key(folders: Path) -> list[Path]:
    try:
        return [path for path in folders.iterdir() if (path / IDENTITY_FILE).is_file()]
    except OSError:
        return []


def _mark_of(path: Path) -> Machine:
    """What cannot be read, or is of an earlier version, is no machine's."""
    if not (path / _MARK_FILE).is_file():
        return Machine()
    try:
        return msgspec.json.decode(read_private(path / _MARK_FILE), type=Machine)
    except msgspec.MsgspecError:
        return Machine()


def _hashed(path: Path) -> str:
    try:
        text = path.read_text(errors="replace").strip().lower()
    except OSError:
        return ""
    plain = text and text.strip("0:-") and text != "uninitialized"
    return hashlib.sha256(f"kohakuriver machine v1 {text}".encode()).hexdigest()[:32] if plain else ""
