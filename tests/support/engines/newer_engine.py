"""Runs lanes of tests against a newer engine than the machine's own: docs/engines.md.

    tools/newer_engine.py [--release NAME]            all that has to do with the engine
    tools/newer_engine.py [--release NAME] --short    what differs most among engines; a part of `make test`
    tools/newer_engine.py [--release NAME] WORDS      anything else: words for pytest

The tests run in a pretended machine with a network and a /run of its own, in which the newer packages lie
over /usr. So the daemon that answers there, and each that a test starts for itself, is the newer one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.engines.newer_packages import SUITES, NewerEngine, NoNewerEngine, newer_engine
from support.engines.private_docker import DockerDaemon, own_daemon
from support.machine.namespaces import Namespaces

_ROOT = Path(__file__).parents[3]
_ALL = ("tests/engine", "tests/contract", "tests/cluster")
_SHORT = (
    "tests/engine/test_docker_workloads.py",
    "tests/engine/test_docker_processes.py",
    "tests/engine/test_docker_snapshots.py",
    "tests/engine/test_engine_restarts.py",
    "tests/engine/test_images.py",
    "tests/contract/test_engine_contract.py",
    "tests/contract/test_vps_contract.py",
)
_WORKERS = ("-q", "-n", "2", "--dist", "loadgroup")


@contextlib.contextmanager
def newer_daemon(folder: Path, engine: NewerEngine) -> Iterator[DockerDaemon]:
    """A daemon that answers, in the namespaces of a machine that has the newer engine."""

    def lay_over(namespaces: Namespaces) -> None:
        layers = f"ro,lowerdir={engine.usr}:/usr"
        try:
            namespaces.run("mount", "-t", "overlay", "-o", layers, "overlay", "/usr")
        except RuntimeError as error:
            raise NoNewerEngine(f"this kernel does not lay one folder over another: {error}") from error

    with own_daemon(folder, prepare=lay_over) as daemon:
        yield daemon


def main(words: list[str]) -> int:
    """Return the exit status of pytest, or 0 where there is no newer engine, which is said in a line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    suites: tuple[str, ...] = SUITES
    if words[:1] == ["--release"]:
        suites, words = tuple(words[1:2]), words[2:]
    if words in ([], ["--short"]):
        words = [*_WORKERS, *(_SHORT if words else _ALL)]
    try:
        return _run(suites, words)
    except NoNewerEngine as error:
        print(f"newer engine: skipped: {error}", flush=True)
        return 0


def _run(suites: Sequence[str], words: Sequence[str]) -> int:
    if os.geteuid() != 0:
        raise NoNewerEngine("needs root")
    engine = newer_engine(suites)
    with tempfile.TemporaryDirectory(prefix="krn-") as name, newer_daemon(Path(name), engine) as daemon:
        return _tests(daemon, engine, words)


def _tests(daemon: DockerDaemon, engine: NewerEngine, words: Sequence[str]) -> int:
    version = daemon.run("version", "--format", "{{.Server.Version}} (API {{.Server.APIVersion}})").strip()
    print(f"newer engine: Docker {version} of {engine.suite}; the machine's own is {engine.own}", flush=True)
    # Who enters other mounts begins at their root.
    there = ("sh", "-c", 'cd "$0" && exec "$@"', str(_ROOT), sys.executable, "-m", "pytest")
    command = daemon.place.namespaces.argv(*there, *words)
    return subprocess.run(command, env={**os.environ, "DOCKER_HOST": daemon.url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
