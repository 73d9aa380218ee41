"""One test per setting of snapshots; `kr-brief` keeps nothing at a stop, one of each, and begins anew."""

from collections.abc import Iterator

import pytest

from settings.conftest import Contrast
from support.cluster.vps import inside, snapshots, vps, vps_on

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("settings"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module", autouse=True)
def brief(contrast: Contrast) -> Iterator[None]:
    """A node of its own: that with all settings changed is privileged, which not every machine can start."""
    runner = contrast.cluster.add_runner(
        "kr-brief", AUTO_SNAPSHOT_ON_STOP=False, MAX_SNAPSHOTS_PER_VPS=1, AUTO_RESTORE_ON_CREATE=False
    )
    yield
    runner.end()


def _file_after_restart(contrast: Contrast, task_id: str) -> str:
    vps(contrast.cluster, "restart", task_id)
    return inside(task_id, "cat /kept 2>/dev/null || echo none")


def test_auto_snapshot_on_stop(contrast: Contrast) -> None:
    for node, count in (("kr-plain", 1), ("kr-brief", 0)):
        with vps_on(contrast.cluster, node) as task_id:
            inside(task_id, "echo kept > /kept")
            vps(contrast.cluster, "stop", task_id)
            assert len(snapshots(contrast.cluster, task_id)) == count
            assert _file_after_restart(contrast, task_id) == ("kept\n" if count else "none\n")


def test_max_snapshots_per_vps(contrast: Contrast) -> None:
    for node, kept in (("kr-plain", ["4", "3", "2"]), ("kr-brief", ["4"])):
        with vps_on(contrast.cluster, node) as task_id:
            for number in range(1, 5):
                vps(contrast.cluster, "snapshot", "create", task_id, "-m", str(number))
            assert [found["message"] for found in snapshots(contrast.cluster, task_id)] == kept


def test_max_snapshots_per_vps_of_0_keeps_none(contrast: Contrast) -> None:
    contrast.cluster.add_runner("kr-none", MAX_SNAPSHOTS_PER_VPS=0)
    with vps_on(contrast.cluster, "kr-none") as task_id:
        refused = contrast.cluster.cli("vps", "snapshot", "create", task_id)
        assert refused.returncode == 1
        assert b"MAX_SNAPSHOTS_PER_VPS" in refused.stderr
        vps(contrast.cluster, "stop", task_id)
        assert snapshots(contrast.cluster, task_id) == []
    contrast.cluster.runners["kr-none"].end()


def test_auto_restore_on_create(contrast: Contrast) -> None:
    for node, found in (("kr-plain", "kept\n"), ("kr-brief", "none\n")):
        with vps_on(contrast.cluster, node) as task_id:
            inside(task_id, "echo kept > /kept")
            time = vps(contrast.cluster, "snapshot", "create", task_id, "-o", "name").strip()
            assert _file_after_restart(contrast, task_id) == found
            # What is named is taken all the same.
            vps(contrast.cluster, "snapshot", "restore", task_id, time)
            assert inside(task_id, "cat /kept") == "kept\n"
