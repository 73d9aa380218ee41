"""Which node a machine is: by its mark, when its name has changed."""

import os
from pathlib import Path

import pytest

from kohakuriver.node_folders import (
    IDENTITY_FILE,
    Machine,
    NodeFolder,
    folder_of_this_machine,
    mark_folder,
    this_machine,
)
from kohakuriver.wire.trust.identity import Identity

ONE = Machine("machine-1", "board-1", ["card-1"])


def made(folders: Path, name: str, machine: Machine | None) -> NodeFolder:
    """The folder of a runner that has run under that name; an earlier version left no mark."""
    folder = NodeFolder(folders / name)
    folder.path.mkdir()
    Identity.load_or_create(folder.path / IDENTITY_FILE)
    if machine is not None:
        mark_folder(folder, machine)
    return folder


def test_a_renamed_machine_is_the_node_that_it_was(tmp_path: Path) -> None:
    made(tmp_path, "old", ONE)
    assert folder_of_this_machine("new", tmp_path, ONE).node == "old"
    assert folder_of_this_machine("old", tmp_path, ONE).node == "old"


def test_its_own_name_comes_first_whatever_the_marks_say(tmp_path: Path) -> None:
    made(tmp_path, "other", ONE)
    made(tmp_path, "own", None)
    assert folder_of_this_machine("own", tmp_path, ONE).node == "own"


@pytest.mark.parametrize(
    ("mark", "is_same"),
    [
        (Machine("machine-1"), True),
        (Machine("machine-1", "", ["card-1", "card-2"]), True),
        (Machine("machine-1", "board-1", ["new-card"]), True),
        (Machine("machine-1", "board-2", ["card-1"]), False),
        (Machine("machine-1", "", ["card-2"]), False),
        (Machine("machine-2", "board-1", ["card-1"]), False),
        (Machine("", "board-1", ["card-1"]), False),
        (None, False),
    ],
)
def test_another_machine_with_the_same_home_is_another_node(
    tmp_path: Path, mark: Machine | None, is_same: bool
) -> None:
    """Copies of a virtual machine have their installation's id in common, and no more."""
    made(tmp_path, "old", mark)
    assert folder_of_this_machine("new", tmp_path, ONE).node == ("old" if is_same else "new")


def test_of_several_folders_the_one_used_last_counts(tmp_path: Path) -> None:
    for at, name in enumerate(("b", "c", "a")):
        folder = made(tmp_path, name, ONE)
        os.utime(folder.path / "machine", (at, at))
    assert folder_of_this_machine("new", tmp_path, ONE).node == "a"


def test_a_mark_that_is_damaged_or_a_folder_that_is_missing_is_no_machines(tmp_path: Path) -> None:
    folder = made(tmp_path, "old", ONE)
    (folder.path / "machine").write_text("{")
    assert folder_of_this_machine("new", tmp_path, ONE).node == "new"
    assert folder_of_this_machine("new", tmp_path / "nowhere", ONE).node == "new"


def test_a_machine_is_read_from_its_files_and_kept_as_hashes(tmp_path: Path) -> None:
    files = {
        "etc/machine-id": "ABCDEF0123456789\n",
        "sys/class/dmi/id/product_uuid": "uuid-1\n",
        "sys/class/net/eth0/address": "02:00:00:00:00:01\n",
        "sys/class/net/docker0/address": "02:42:00:00:00:01\n",
        "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for card in ("eth0", "lo"):
        (tmp_path / "sys/class/net" / card / "device").mkdir()
    found = this_machine(tmp_path)
    assert len(found.cards) == 1, "no bridge, and no card without an address of its own"
    assert not [text for text in files.values() if text.strip().lower() in str(found).lower()]
    assert found.is_same_as(this_machine(tmp_path))
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    assert not this_machine(tmp_path).is_same_as(this_machine(tmp_path))
