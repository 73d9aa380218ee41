"""The command line starts quickly because it imports little; every command of the table exists."""

import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = {
    "aiohttp",
    "asyncio",
    "cryptography",
    "fastapi",
    "httpcore2",
    "httpx2",
    "kohakuengine",
    "logging",
    "msgspec",
    "psutil",
    "pydantic",
    "rich",
    "socket",
    "sqlalchemy",
    "ssl",
    "structlog",
    "websockets",
    "yaml",
}

PROBE = """
import sys
sys.argv = {argv!r}
from kohakuriver.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print("\\n" + " ".join(sys.modules))
"""


def modules_after(*arguments: str) -> set[str]:
    code = PROBE.format(argv=["kohakuriver", *arguments])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rsplit("\n", 2)[-2].split())


def test_help_imports_click_and_no_command() -> None:
    modules = modules_after("--help")
    assert {name for name in modules if name.startswith("kohakuriver.")} == {
        "kohakuriver.cli",
        "kohakuriver.cli.boundary",
        "kohakuriver.cli.console",
        "kohakuriver.cli.lazy",
        "kohakuriver.cli.main",
        "kohakuriver.cli.console.plain_text",
        "kohakuriver.cli.host_choice",
        "kohakuriver.models",
        "kohakuriver.models.errors",
    }
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "words", [("task",), ("node",), ("docker",), ("run",), ("vps",), ("vps", "create"), ("vps", "stop")]
)
def test_help_of_a_group_imports_no_client(words: tuple[str, ...]) -> None:
    modules = modules_after(*words, "--help")
    assert not modules & (HEAVY - {"logging"})
    assert not modules & {"kohakuriver.client.host_client", "kohakuriver.models.tasks"}


def test_a_client_of_plain_http_imports_no_more_than_it_needs() -> None:
    """Each command pays for it; the proof of the host by itself costs what a request costs."""
    code = (
        "from kohakuriver.client.host_client import HostClient;"
        "from kohakuriver.client.connection.host_trust import HostAccess;"
        "HostClient(HostAccess('http://127.0.0.1:1', 'token'));"
        "import sys; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(done.stdout.split())
    assert {"httpcore2", "kohakuriver.client.connection.proven_connection"} <= modules
    assert not modules & {"aiohttp", "asyncssh", "httpx2", "structlog", "uvloop", "websockets"}


@pytest.mark.parametrize("table", ["kohakuriver.cli.main:root", "kohakuriver.cli.vps.commands:vps"])
def test_the_help_lists_every_command_with_its_own_summary(table: str) -> None:
    import click

    module, attribute = table.split(":")
    group = getattr(import_module(module), attribute)
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        assert command.name == name
        assert command.help, name
