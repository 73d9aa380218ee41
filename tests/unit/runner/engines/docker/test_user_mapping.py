"""Engines that map users: known by what they say of themselves, and what a node's administrator is told."""

import os
from pathlib import Path

import pytest

from kohakuriver.files.system.id_maps import IdMaps
from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedFolder
from kohakuriver.runner.engines.docker.user_mapping import UserMapping

MAPPED = {
    "SecurityOptions": ["name=seccomp,profile=default", "name=userns"],
    "DockerRootDir": "/data/200000.300000",
}


def test_such_an_engine_is_known_by_its_own_words() -> None:
    assert UserMapping.of(MAPPED).root == (200_000, 300_000)
    assert UserMapping.of({**MAPPED, "SecurityOptions": ["name=seccomp"]}).root is None
    assert UserMapping.of({**MAPPED, "DockerRootDir": "/var/lib/docker"}).root is None
    assert UserMapping.of({"DockerRootDir": "/x", "SecurityOptions": None}).root is None
    assert UserMapping().notices([GuardedFolder("shared", Path("/nowhere"), ())]) == []


@pytest.mark.parametrize(("mode", "is_closed"), [(0o1777, False), (0o775, True), (0o755, True)])
def test_folders_that_are_closed_to_its_users_are_named(tmp_path: Path, mode: int, is_closed: bool) -> None:
    (tmp_path / "shared_data").mkdir()
    (tmp_path / "shared_data").chmod(mode)
    folders = [
        GuardedFolder("shared", tmp_path, ("shared_data",)),
        GuardedFolder("local_temp", tmp_path, ("missing",)),
    ]
    first, *others = UserMapping((200_000, 200_000)).notices(folders)
    assert "user 200000 + N" in first
    assert [f"chmod 1777 {tmp_path}/shared_data" in other for other in others] == [True] * is_closed
    owner = UserMapping((os.getuid(), os.getgid())).notices(folders)
    assert len(owner) == 1, "a folder of theirs is open to them"


def test_ids_are_found_both_ways() -> None:
    ids = IdMaps(((0, 200_000, 1000), (1000, 5000, 1)), ((0, 300_000, 65_536),))
    assert ids.root == (200_000, 300_000)
    assert ids.outside(1000, 7) == (5000, 300_007)
    assert ids.inside(200_007, 300_007) == (7, 7)
    assert ids.inside(0, 0) == (65_534, 65_534), "as the kernel shows who is nobody inside"
    assert IdMaps().inside(12, 13) == IdMaps().outside(12, 13) == (12, 13)
    assert IdMaps.of_pid(os.getpid()).inside(5, 6) == IdMaps.of_pid(None).inside(5, 6)
