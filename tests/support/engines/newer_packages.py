"""A Docker engine of a newer release of the distribution, fetched as packages and unpacked, never installed.

The machine's own package sources say where packages come from and whose signature they bear; only the name of
the release is another. apt keeps all that it writes for this in a folder of ours, so that the machine's own
lists, caches and packages stay as they are. What was unpacked is kept under `.cache/`, named for its content.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE = Path(__file__).parents[3] / ".cache"
_SOURCES = Path("/etc/apt")
# By the names that they have whichever release is the newest.
SUITES = ("stable", "testing")
_ENGINE = ("docker.io", "containerd", "runc", "tini")
_CLIENT = "docker-cli"
"""A package of its own in newer releases."""
_FRESH_SECONDS = 7 * 24 * 3600
_PACKAGES_SECONDS = 300
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders whose content lies below /usr since directories were merged."""


class NoNewerEngine(Exception):
    """There is none here; the text says why."""


@dataclass(frozen=True)
class NewerEngine:
    """`own`: version of the machine's engine, than which this one is newer. `usr` goes over the machine's."""

    version: str
    suite: str
    own: str
    folder: str

    @property
    def usr(self) -> Path:
        return Path(self.folder) / "usr"


def newer_engine(suites: Sequence[str] = SUITES, cache: Path = CACHE) -> NewerEngine:
    """Return the first that a release offers, fetched now if none is kept; raises NoNewerEngine."""
    own = _own_version()
    cache.mkdir(exist_ok=True)
    note = cache / f"newer-engine-{'-'.join(suites)}.json"
    # One process fetches it, the others wait for it.
    with (cache / "newer-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = _kept(note, own)
        if kept is not None and time.time() - note.stat().st_mtime < _FRESH_SECONDS:
            return kept
        try:
            found = _fetch(cache, suites, own)
        except NoNewerEngine:
            if kept is None:
                raise
            return kept
        note.write_text(json.dumps(asdict(found)))
        return found


def _own_version() -> str:
    program = shutil.which("dockerd")
    if program is None:
        raise NoNewerEngine("no dockerd is installed to compare with")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(?:\.\d+)+", said)
    if found is None:
        raise NoNewerEngine(f"{program} does not say its version: {said.strip()}")
    return found[0]


def _kept(note: Path, own: str) -> NewerEngine | None:
    try:
        kept = NewerEngine(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return kept if kept.own == own and kept.usr.is_dir() else None


def _fetch(cache: Path, suites: Sequence[str], own: str) -> NewerEngine:
    if shutil.which("apt-get") is None:
        raise NoNewerEngine("this system has no apt-get to fetch one with")
    offers = []
    for suite in suites:
        apt = PrivateApt(cache / f"newer-apt-{suite}", suite)
        version = apt.update()
        if _major(version) > _major(own):
            return NewerEngine(version, suite, own, str(_unpacked(cache, apt)))
        offers.append(f"{version or 'none'} in {suite}")
    raise NoNewerEngine(f"the package sources offer nothing newer than {own} ({', '.join(offers)})")


def _major(version: str) -> int:
    """Of a version with a distribution's own words around it; 0 for no version."""
    found = re.match(r"(?:\d+:)?(\d+)", version)
    return int(found[1]) if found else 0


def _unpacked(cache: Path, apt: "PrivateApt") -> Path:
    packages = apt.download(apt.with_libraries([*_ENGINE, *apt.known([_CLIENT])]))
    content = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in packages))
    folder = cache / f"newer-engine-{content.hexdigest()[:16]}"
    if not folder.exists():
        draft = folder.with_name(f"{folder.name}.{os.getpid()}.draft")
        try:
            for package in packages:
                subprocess.run(["dpkg-deb", "-x", str(package), str(draft)], check=True)
            _merge(draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for package in packages:
        package.unlink()
    return folder


def _merge(tree: Path) -> None:
    """Put what a package still has beside /usr into it, as the machine's links would."""
    for name in _MERGED:
        if (tree / name).is_dir() and not (tree / name).is_symlink():
            shutil.copytree(tree / name, tree / "usr" / name, symlinks=True, dirs_exist_ok=True)


class PrivateApt:
    """apt with lists, caches and sources of its own: those of the machine, for another release."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite
        for part in ("state/lists/partial", "cache/archives/partial", "sources", "debs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        self._config = folder / "apt.conf"
        self._config.write_text(_config(folder))

    def update(self) -> str:
        """Read what the release has; return the version of its engine, empty for none."""
        self._write_sources()
        self._run("apt-get", "-qq", "update")
        said = self._run("apt-cache", "policy", "docker.io")
        found = re.search(r"Candidate: (\S+)", said)
        return "" if found is None or found[1] == "(none)" else found[1]

    def known(self, packages: Iterable[str]) -> list[str]:
        return [name for name in packages if "Candidate: " in self._run("apt-cache", "policy", name)]

    def with_libraries(self, packages: Iterable[str]) -> list[str]:
        """The packages, and all shared libraries that they need, down to the C library."""
        found: set[str] = set()
        new = set(packages)
        while new:
            found |= new
            said = self._run("apt-cache", "--no-recommends", "--no-suggests", "depends", *sorted(new))
            needed = re.findall(r"^ *\|?(?:Pre)?Depends: (lib[a-z0-9+.-]+)$", said, re.MULTILINE)
            new = {name for name in needed if not name.endswith("-dev")} - found
        return sorted(found)

    def download(self, packages: Iterable[str]) -> list[Path]:
        debs = self._folder / "debs"
        for stale in debs.iterdir():
            stale.unlink()
        self._run("apt-get", "-qq", "download", *packages, inside=debs)
        return sorted(debs.glob("*.deb"))

    def _write_sources(self) -> None:
        codename = _codename()
        files = [_SOURCES / "sources.list", *sorted((_SOURCES / "sources.list.d").glob("*"))]
        texts = {path: path.read_text() for path in files if path.is_file()}
        classic = [line for path in texts if path.suffix == ".list" for line in texts[path].splitlines()]
        deb822 = [text for path in texts if path.suffix == ".sources" for text in texts[path].split("\n\n")]
        lines = list(_lines(classic, codename, self._suite))
        stanzas = list(_stanzas(deb822, codename, self._suite))
        if not lines and not stanzas:
            raise NoNewerEngine(f"the machine's package sources name no release {codename!r}")
        (self._folder / "sources" / "newer.list").write_text("\n".join(lines) + "\n")
        (self._folder / "sources" / "newer.sources").write_text("\n\n".join(stanzas) + "\n")

    def _run(self, *command: str, inside: Path | None = None) -> str:
        program, *words = command
        try:
            done = subprocess.run(
                [program, "-c", str(self._config), *words],
                cwd=inside,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PACKAGES_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            text = f"{program} {words[0]} of release {self._suite} took longer than {_PACKAGES_SECONDS} s"
            raise NoNewerEngine(text) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NoNewerEngine(f"{program} {words[0]} of release {self._suite} failed: {' '.join(said[:2])}")
        return done.stdout


def _config(folder: Path) -> str:
    """Read after the machine's own, so that its proxies and certificates apply, and none of its hooks do."""
    values = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "sources",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Log": folder,
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",  # its own user may not pass through folders of ours
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled": "false",
    }
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
    cleared = [f"#clear {hook};" for hook in hooks]
    return "\n".join([*cleared, *(f'{name} "{value}";' for name, value in values.items())]) + "\n"


def _codename() -> str:
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise NoNewerEngine("this system does not say the name of its release")
    return found[1]


def _lines(lines: Iterable[str], codename: str, suite: str) -> Iterator[str]:
    """Of the one-line form: those of the machine's release proper, for the other release."""
    for line in lines:
        if line.startswith("deb ") and codename in line.split("#")[0].split():
            yield re.sub(rf"(?<=\s){codename}(?=\s)", suite, line)


def _stanzas(stanzas: Iterable[str], codename: str, suite: str) -> Iterator[str]:
    """The same of the form with fields."""
    for stanza in stanzas:
        named = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
        if named is not None and codename in named[1].split():
            yield stanza.strip().replace(named[0], f"Suites: {suite}")
