"""The first process of a sandbox: it starts the client again, whatever becomes of that, and never ends."""

import io
import os
import resource
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kohakuriver.runner.engines.docker.sandboxes.image import find_pause_binary, image_tar

pytestmark = pytest.mark.root

NOBODY = 65534
# One line a start, then it stays. exec: a kill is to meet what counts as the client.
CLIENT = "#!{shell}\necho $$ >> {folder}/starts\nexec {folder}/sleep 600\n"
SHORT_LIVED = "#!{shell}\necho $$ >> {folder}/starts\n"


def script_in_image() -> str:
    with tarfile.open(fileobj=io.BytesIO(image_tar(find_pause_binary().read_bytes(), b"client"))) as tar:
        script = tar.extractfile("keep-client")
        assert script is not None
        return script.read().decode()


@dataclass(frozen=True)
class Kept:
    process: "subprocess.Popen[bytes]"
    folder: Path

    def starts(self) -> list[int]:
        """The numbers of the clients that were started, in turn."""
        path = self.folder / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def children(self) -> list[str]:
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def limit_processes(self, limit: str) -> None:
        argv = ["prlimit", "--pid", str(self.process.pid), f"--nproc={limit}"]
        subprocess.run(argv, user=NOBODY, group=NOBODY, extra_groups=[], check=True)

    def is_resting(self) -> bool:
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "S" and not self.children()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """The script as it is in the image, with its programs in a folder that users without rights can reach."""
    folder = Path("/tmp") / f"kr-keep-{tmp_path.parent.name}-{tmp_path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("sh", "sleep"):
        shutil.copy(find_pause_binary(), folder / name)
    names = {"shell": folder / "sh", "folder": folder}
    (folder / "client").write_text(request.param.format(**names))
    (folder / "client").chmod(0o755)
    script = script_in_image()
    assert "/tunnel-client" in script
    (folder / "keep").write_text(script.replace("/tunnel-client", str(folder / "client")))
    os.chown(folder, NOBODY, NOBODY)
    process = subprocess.Popen(
        [folder / "sh", folder / "keep"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        start_new_session=True,
    )
    try:
        yield Kept(process, folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.parametrize("kept", [CLIENT], indirect=True)
def test_a_client_that_is_killed_comes_back(kept: Kept) -> None:
    for count in (1, 2, 3):
        wait_until(lambda: len(kept.starts()) == count)  # noqa: B023 - called before it changes
        os.kill(kept.starts()[-1], signal.SIGKILL)
    wait_until(lambda: len(kept.starts()) == 4)
    assert kept.process.poll() is None


@pytest.mark.parametrize("kept", [SHORT_LIVED], indirect=True)
def test_a_client_that_does_not_last_is_left_alone_for_longer_each_time(kept: Kept) -> None:
    wait_until(lambda: len(kept.starts()) == 4)
    wait_until(kept.is_resting)
    rested = Path(f"/proc/{kept.process.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(rested[11]) + int(rested[12])
    assert ticks <= os.sysconf("SC_CLK_TCK") // 2, "it rests and does not look again and again"
    assert kept.process.poll() is None


@pytest.mark.parametrize("kept", [CLIENT], indirect=True)
def test_a_node_that_has_no_process_left_costs_the_client_and_not_its_keeper(kept: Kept) -> None:
    wait_until(lambda: len(kept.starts()) == 1)
    kept.limit_processes("0:")
    os.kill(kept.starts()[-1], signal.SIGKILL)
    wait_until(kept.is_resting)
    assert len(kept.starts()) == 1
    kept.limit_processes(str(resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    wait_until(lambda: len(kept.starts()) == 2)
    assert kept.process.poll() is None
