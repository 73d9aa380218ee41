"""Watched folders: every change is told once, by its path, and what cannot be told is said."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system import inotify
from kohakuriver.files.system.kernel_mounts import KernelMounts
from kohakuriver.files.tree_watch import Change, Lost, News, TreeWatch
from kohakuriver.models.enums import FileChange
from kohakuriver.models.errors import NotFound

CREATE, MODIFY, DELETE, MOVE = FileChange


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[RootedFs]:
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield RootedFs(root, KernelMounts())
    finally:
        os.close(root)


@pytest.fixture
def watch(fs: RootedFs) -> Iterator[TreeWatch]:
    watch = TreeWatch(fs)
    yield watch
    watch.close()


def told(watch: TreeWatch) -> list[tuple[FileChange, str]]:
    return [(news.kind, news.path.decode()) for news in changes(watch)]


def changes(watch: TreeWatch) -> list[Change]:
    found: list[News] = []
    while news := watch.take():
        found += news
    return [item for item in found if isinstance(item, Change)]


def test_a_file_is_created_modified_moved_and_deleted(watch: TreeWatch, tmp_path: Path) -> None:
    assert watch.add(b"/") == []
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    assert changes(watch) == [
        Change(CREATE, b"/a", False),
        Change(MODIFY, b"/a", False),
        Change(MOVE, b"/b", False, b"/a"),
        Change(DELETE, b"/b", False),
    ]
    assert watch.take() == []


def test_a_write_in_many_steps_is_one_modification(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    watch.add(b"/")
    with (tmp_path / "a").open("ab", 0) as one, (tmp_path / "b").open("ab", 0) as two:
        for _ in range(50):
            one.write(b"x")
            two.write(b"x")
    assert told(watch) == [(MODIFY, "/a"), (MODIFY, "/b")]


def test_what_was_there_before_is_not_told(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/old").touch()
    watch.add(b"/sub")
    assert watch.take() == []
    (tmp_path / "sub/deep/new").touch()
    (tmp_path / "beside").touch()
    assert told(watch) == [(CREATE, "/sub/deep/new")]


def test_all_that_is_put_into_a_new_folder_is_told_once(watch: TreeWatch, tmp_path: Path) -> None:
    """Also what is put there before the folder itself is watched."""
    watch.add(b"/")
    (tmp_path / "n/m").mkdir(parents=True)
    (tmp_path / "n/m/early").touch()
    assert told(watch) == [(CREATE, "/n"), (CREATE, "/n/m"), (CREATE, "/n/m/early")]
    (tmp_path / "n/m/late").touch()
    (tmp_path / "n/m/early").unlink()
    (tmp_path / "n/m/early").touch()
    assert told(watch) == [(CREATE, "/n/m/late"), (DELETE, "/n/m/early"), (CREATE, "/n/m/early")]


def test_what_comes_between_the_watch_and_the_look_is_told_once(
    watch: TreeWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.add(b"/")
    add = inotify.Inotify.add

    def add_and_create(self: inotify.Inotify, folder: int) -> int:
        number = add(self, folder)
        (tmp_path / "n/between").touch()
        return number

    monkeypatch.setattr(inotify.Inotify, "add", add_and_create)
    (tmp_path / "n").mkdir()
    assert told(watch) == [(CREATE, "/n"), (CREATE, "/n/between")]


def test_a_file_seen_in_a_new_folder_is_told_again_when_it_comes_again(
    watch: TreeWatch, tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    watch.add(b"/w")
    (tmp_path / "w/n").mkdir()
    (tmp_path / "w/n/x").touch()
    assert told(watch) == [(CREATE, "/w/n"), (CREATE, "/w/n/x")]
    (tmp_path / "outside").touch()
    os.rename(tmp_path / "outside", tmp_path / "w/n/x")
    assert told(watch) == [(CREATE, "/w/n/x")]


def test_what_is_below_a_moved_folder_is_told_by_its_new_path(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "old/deep").mkdir(parents=True)
    watch.add(b"/")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new/deep/file").touch()
    assert changes(watch) == [Change(MOVE, b"/new", True, b"/old"), Change(CREATE, b"/new/deep/file", False)]


def test_a_move_out_is_a_delete_and_a_move_in_a_create(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "w/d").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    watch.add(b"/w")
    (tmp_path / "w/d").rename(tmp_path / "out/d")
    assert told(watch) == [(DELETE, "/w/d")]
    (tmp_path / "out/d/file").touch()
    assert told(watch) == []
    (tmp_path / "out/d").rename(tmp_path / "w/e")
    assert told(watch) == [(CREATE, "/w/e"), (CREATE, "/w/e/file")]
    (tmp_path / "w/e/more").touch()
    assert told(watch) == [(CREATE, "/w/e/more")]


def test_one_file_is_watched_through_the_way_editors_save(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("old")
    watch.add(b"/conf")
    (tmp_path / "other").touch()
    (tmp_path / "draft").write_text("new")
    (tmp_path / "draft").rename(tmp_path / "conf")
    assert told(watch) == [(CREATE, "/conf")]
    (tmp_path / "conf").unlink()
    assert told(watch) == [(DELETE, "/conf")]


def test_links_are_not_followed_by_a_watch(watch: TreeWatch, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w/link").symlink_to("../elsewhere")
    (tmp_path / "w/circle").symlink_to(".")
    watch.add(b"/w")
    (tmp_path / "elsewhere/file").touch()
    assert told(watch) == []


def test_what_is_not_there_cannot_be_watched(watch: TreeWatch) -> None:
    with pytest.raises(NotFound):
        watch.add(b"/missing")


def test_more_folders_than_the_bound_are_told_and_the_others_watched(fs: RootedFs, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"d{number}").mkdir()
    watch = TreeWatch(fs, max_folders=5)
    try:
        (lost,) = watch.add(b"/")
        assert "watch fewer folders" in lost.sentence
        (tmp_path / "new").mkdir()
        assert Change(CREATE, b"/new", True) in watch.take()
    finally:
        watch.close()


def test_what_the_kernel_had_to_drop_is_told(watch: TreeWatch, tmp_path: Path) -> None:
    watch.add(b"/")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 100):
        name = tmp_path / str(number)
        name.touch()
        name.unlink()
    news = watch.take()
    assert [item for item in news if isinstance(item, Lost)]
    (tmp_path / "after").touch()
    assert told(watch) == [(CREATE, "/after")]


def test_the_machines_own_limit_is_named(
    watch: TreeWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify, "inotify_add_watch", full)
    (lost,) = watch.add(b"/")
    assert "max_user_watches" in lost.sentence


def test_after_the_close_nothing_is_told_and_closing_again_is_free(fs: RootedFs) -> None:
    let_go: list[int] = []
    watch = TreeWatch(fs, let_go=lambda: let_go.append(1))
    watch.add(b"/")
    watch.close()
    watch.close()
    assert watch.take() == []
    assert watch.add(b"/") == []
    assert let_go == [1]
