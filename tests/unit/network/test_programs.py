"""The programs `nft` and `ip`, as stand-ins that end in ways of their own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kohakuriver.network import nft_command
from kohakuriver.network.programs import NetworkFault


@pytest.fixture
def _ends_before_it_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each program has ended before the caller goes on."""
    start = asyncio.create_subprocess_exec

    async def start_and_wait(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*arguments, **options)
        await process.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_wait)


def _stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.usefixtures("_ends_before_it_is_spoken_to")
def test_a_program_that_ended_at_once_has_done_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(tmp_path, monkeypatch, "ip", "exit 0")
    uvloop.run(nft_command.learn_nothing_from_link_local("kohaku0"))


@pytest.mark.usefixtures("_ends_before_it_is_spoken_to")
def test_a_program_that_reads_nothing_and_refuses_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(tmp_path, monkeypatch, "nft", "echo not allowed >&2; exit 1")
    with pytest.raises(NetworkFault, match="nft refused: not allowed"):
        uvloop.run(nft_command.apply_rules("add table inet x\n" * 100_000))


@pytest.mark.usefixtures("_ends_before_it_is_spoken_to")
def test_a_program_is_given_all_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "nft", f"cat > {tmp_path}/given")
    text = "add table inet x\n" * 100_000
    uvloop.run(nft_command.apply_rules(text))
    assert (tmp_path / "given").read_text() == text


def test_what_a_program_says_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "nft", "exec head -c 40000000 /dev/zero")
    with pytest.raises(NetworkFault, match="more than 16 MiB"):
        uvloop.run(nft_command.list_tables())


def test_what_is_no_json_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "nft", "echo '{'")
    with pytest.raises(NetworkFault, match="no JSON"):
        uvloop.run(nft_command.list_tables())
