"""Files of a task on a real cluster: over the interface, watched, and copied both ways by command."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from support.cluster.cluster import Cluster
from support.cluster.vps import vps_on
from support.messages.file_trees import facts_of, make_tree

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def task(cluster: Cluster) -> Iterator[str]:
    task_id = cluster.submit("sleep", "600")
    cluster.await_state(task_id, "running")
    yield task_id
    cluster.client.post(f"/api/kill/{task_id}")


def copied(cluster: Cluster, source: str, destination: str, status: int = 0, **options: object) -> bytes:
    done = cluster.cli("cp", source, destination, **options)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout if status == 0 else done.stderr


def test_a_tree_of_ten_thousand_files_comes_back_exactly(cluster: Cluster, task: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", many=10_000)
    copied(cluster, str(tmp_path / "tree"), f"{task}:/tree")
    copied(cluster, f"{task}:/tree", str(tmp_path / "back"))
    assert facts_of(tmp_path / "back") == facts_of(tmp_path / "tree")


def test_a_large_file_arrives_whole(cluster: Cluster, task: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(64 << 20))
    copied(cluster, str(tmp_path / "large"), f"{task}:/large")
    copied(cluster, f"{task}:/large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()


def test_sparse_files_stay_sparse_both_ways(cluster: Cluster, task: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for name in ("deep/disk.img", "other.img"):
        (tree / name).write_bytes(b"begin")
        with (tree / name).open("r+b") as file:
            file.truncate(128 << 20)
            file.seek(64 << 20)
            file.write(os.urandom(100_000))
    (tree / "deep/after").write_text("after")
    (tree / "deep/link").symlink_to("disk.img")
    os.utime(tree / "deep", ns=(5, 1_000_000_000_000_000_000))
    copied(cluster, str(tree), f"{task}:/sparse")
    pid = int(
        subprocess.check_output(["docker", "inspect", "-f", "{{.State.Pid}}", f"kohakuriver-task-{task}"])
    )
    inside = Path(f"/proc/{pid}/root/sparse")
    for name in ("deep/disk.img", "other.img"):
        facts = (inside / name).stat()
        assert (facts.st_size, facts.st_blocks * 512 < 1 << 20) == (128 << 20, True)
        assert facts.st_mtime_ns == (tree / name).stat().st_mtime_ns
    assert (inside / "deep").stat().st_mtime_ns == 1_000_000_000_000_000_000
    copied(cluster, f"{task}:/sparse/deep", str(tmp_path / "back"))
    subprocess.run(["cmp", tmp_path / "back/disk.img", tree / "deep/disk.img"], check=True)
    assert (tmp_path / "back/disk.img").stat().st_blocks * 512 < 1 << 20


def test_a_copy_goes_where_cp_would_put_it(cluster: Cluster, task: str, tmp_path: Path) -> None:
    tree = tmp_path / "d"
    tree.mkdir()
    (tree / "f").write_text("f")
    cluster.api("POST", f"/api/fs/{task}/mkdir", json={"path": "/where/here", "create_parents": True})
    copied(cluster, str(tree), f"{task}:/where/here")
    copied(cluster, str(tree), f"{task}:/where/new")
    copied(cluster, f"{tree}/.", f"{task}:/where/here")
    copied(cluster, str(tree / "f"), f"{task}:/where/here/g")
    copied(cluster, str(tree / "f"), f"{task}:where/here/")
    assert paths_below(cluster, task, "/where") == {
        "/where/here",
        "/where/here/d",
        "/where/here/d/f",
        "/where/here/f",
        "/where/here/g",
        "/where/new",
        "/where/new/f",
    }
    for source, target, status, word in (
        (str(tree / "f"), f"{task}:/missing/x", 3, "no folder /missing"),
        (str(tree / "f"), f"{task}:/missing/", 3, "no folder /missing"),
        (str(tree), f"{task}:/where/here/g", 1, "no folder"),
        (str(tree / "none"), f"{task}:/where", 3, "none"),
        (f"{task}:/missing", str(tmp_path), 3, "no /missing"),
        (f"{task}:/where", str(tmp_path / "no/such"), 3, "make it first"),
        (f"{task}:/where", str(tree / "f"), 1, "no folder"),
        (f"{task}:/proc", str(tmp_path), 4, "kernel"),
        ("99:/x", str(tmp_path), 3, ""),
        (str(tree), str(tmp_path / "x"), 2, "exactly one"),
        (f"{task}:/a", f"{task}:/b", 2, "exactly one"),
    ):
        message = copied(cluster, source, target, status).decode()
        assert word in message, (source, target)
        assert message.count("\n") == 1


def paths_below(cluster: Cluster, task: str, path: str) -> set[str]:
    found = set()
    for entry in cluster.api("GET", f"/api/fs/{task}/list", params={"path": path})["entries"]:
        found |= {entry["path"]} | (paths_below(cluster, task, entry["path"]) if entry["is_dir"] else set())
    return found


def test_copies_here_go_where_cp_would_put_them(cluster: Cluster, task: str, tmp_path: Path) -> None:
    body = {"path": "/from/d/f", "content": "f", "create_parents": True}
    cluster.api("POST", f"/api/fs/{task}/write", json=body)
    (tmp_path / "here").mkdir()
    copied(cluster, f"{task}:/from/d", str(tmp_path / "here"))
    copied(cluster, f"{task}:/from/d", str(tmp_path / "new"))
    copied(cluster, f"{task}:/from/d/.", str(tmp_path / "here"))
    copied(cluster, f"{task}:/from/d/f", f"{tmp_path}/here/")
    copied(cluster, f"{task}:/from/d/f", str(tmp_path / "g"))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "here",
        "here/d",
        "here/d/f",
        "here/f",
        "new",
        "new/f",
        "g",
    }


def test_a_link_to_a_folder_is_a_way_into_it_and_is_itself_copied_as_a_link(
    cluster: Cluster, task: str, tmp_path: Path
) -> None:
    make = "mkdir -p /real/deep; ln -s real /way; ln -s /real/deep /real/in"
    assert cluster.cli("exec", task, "--", "sh", "-c", make).returncode == 0
    (tmp_path / "f").write_text("f")
    copied(cluster, str(tmp_path / "f"), f"{task}:/way")
    copied(cluster, str(tmp_path / "f"), f"{task}:/way/in/g")
    assert paths_below(cluster, task, "/real") == {"/real/deep", "/real/deep/g", "/real/in", "/real/f"}
    copied(cluster, f"{task}:/way", str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "real"
    copied(cluster, f"{task}:/way/", str(tmp_path / "folder"))
    assert sorted(os.listdir(tmp_path / "folder")) == ["deep", "f", "in"]


def test_a_vps_is_named_by_its_name(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    node = str(cluster.listed_nodes()[0]["hostname"])
    with vps_on(cluster, node, "copy-lab"):
        copied(cluster, str(tmp_path / "f"), "copy-lab:/root-of-it")
        assert copied(cluster, "copy-lab:/root-of-it", "-") == b"f"


def test_streams_on_standard_input_and_output(cluster: Cluster, task: str, tmp_path: Path) -> None:
    copied(cluster, "-", f"{task}:/streamed", input=b"content")
    assert copied(cluster, f"{task}:/streamed", "-") == b"content"
    make_tree(tmp_path / "tree")
    stream = subprocess.run(
        ["tar", "-C", str(tmp_path), "-c", "tree"], capture_output=True, check=True
    ).stdout
    cluster.api("POST", f"/api/fs/{task}/mkdir", json={"path": "/unpacked"})
    copied(cluster, "-", f"{task}:/unpacked", input=stream)
    back = copied(cluster, f"{task}:/unpacked/tree", "-")
    (tmp_path / "back").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "back"), "-xp"], input=back, check=True)
    assert facts_of(tmp_path / "back/tree") == facts_of(tmp_path / "tree")


def test_what_is_copied_in_belongs_to_whom_the_folder_belongs(cluster: Cluster, task: str) -> None:
    make = "mkdir /home-of; chown 1234:2345 /home-of"
    assert cluster.cli("exec", task, "--", "sh", "-c", make).returncode == 0
    copied(cluster, "-", f"{task}:/home-of/file", input=b"x")
    found = cluster.api("GET", f"/api/fs/{task}/stat", params={"path": "/home-of/file"})
    assert (found["uid"], found["gid"], found["size"]) == (1234, 2345, 1)


def test_the_interface_reads_and_writes_up_to_its_limits(cluster: Cluster, task: str) -> None:
    content = "ü" * (25 << 20)
    answer = cluster.api("POST", f"/api/fs/{task}/write", json={"path": "/big", "content": content})
    assert "52428800 bytes" in answer["message"]
    found = cluster.api("GET", f"/api/fs/{task}/read", params={"path": "/big"})
    assert (found["size"], found["truncated"], len(found["content"])) == (50 << 20, True, 5 << 20)
    too_large = cluster.client.post(f"/api/fs/{task}/write", json={"path": "/big", "content": content + "x"})
    assert too_large.status_code == 413
    assert "cp" in too_large.json()["detail"]
    cluster.api("POST", f"/api/fs/{task}/rename", json={"source": "/big", "destination": "/bigger"})
    assert cluster.client.get(f"/api/fs/{task}/stat", params={"path": "/big"}).status_code == 404
    cluster.api("DELETE", f"/api/fs/{task}/delete", params={"path": "/bigger"})
    for query, status in (({"path": "/bigger"}, 404), ({"path": "relative"}, 422), ({"path": "/proc"}, 403)):
        assert cluster.client.get(f"/api/fs/{task}/read", params=query).status_code == status


def test_changes_are_told_over_the_hosts_socket(cluster: Cluster, task: str) -> None:
    cluster.api("POST", f"/api/fs/{task}/mkdir", json={"path": "/seen/below", "create_parents": True})
    url = f"{cluster.url.replace('http', 'ws', 1)}/ws/fs/{task}/watch?paths=/seen,/home"
    headers = {"Authorization": f"Bearer {cluster.token}"}
    cluster.api("POST", f"/api/fs/{task}/mkdir", json={"path": "/home"})
    with connect(url, additional_headers=headers, proxy=None) as watch:
        assert json.loads(watch.recv(10)) == {"type": "watching", "paths": ["/seen", "/home"]}
        watch.send('{"type": "ping"}')
        assert json.loads(watch.recv(10)) == {"type": "pong"}
        cluster.api("POST", f"/api/fs/{task}/mkdir", json={"path": "/seen/below/new"})
        found = json.loads(watch.recv(10))
        assert found == {"type": "change", "event": "CREATE", "path": "/seen/below/new", "is_dir": True}
