"""Configuration files for tests."""

from pathlib import Path


def write_config(folder: Path, text: str, name: str = "some_config.py") -> Path:
    """Write a configuration file that root, too, will load."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path
