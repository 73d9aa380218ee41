"""The programs that have settings: their tables, their files, and their checks across settings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kohakuriver.config import together
from kohakuriver.config.client import ClientConfig
from kohakuriver.config.host import HostConfig
from kohakuriver.config.runner import RunnerConfig
from kohakuriver.config.settings import Setting, settings_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Program(Generic[T]):
    """A program with a table of settings. `file_name` is that of its file in `~/.kohakuriver`.

    `findings` and `remarks` look at several settings at once: faults, and what is only worth a warning.
    """

    name: str
    config: Callable[..., T]
    settings: tuple[Setting, ...]
    file_name: str
    findings: Callable[[together.Values], Iterator[together.Finding]]
    remarks: Callable[[together.Values], Iterator[str]]


RUNNER = Program(
    name="runner",
    config=RunnerConfig,
    settings=settings_of(RunnerConfig),
    file_name="runner_config.py",
    findings=together.runner_findings,
    remarks=together.no_remarks,
)
HOST = Program(
    name="host",
    config=HostConfig,
    settings=settings_of(HostConfig),
    file_name="host_config.py",
    findings=together.host_findings,
    remarks=together.host_remarks,
)
CLIENT = Program(
    name="client",
    config=ClientConfig,
    settings=settings_of(ClientConfig),
    file_name="cli_config.py",
    findings=together.no_findings,
    remarks=together.no_remarks,
)


def other_programs(program: Program[Any]) -> tuple[Program[Any], ...]:
    """The programs whose settings a file for `program` may hold as well, being shared with them."""
    return tuple(other for other in (RUNNER, HOST) if other is not program)
