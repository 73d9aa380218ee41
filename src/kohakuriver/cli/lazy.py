"""A click group that knows its commands by name and imports a command's module when it is called."""

from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """`table`: name of a command to (short help, "module:attribute"); nothing of it is imported for help."""

    def __init__(
        self, name: str | None = None, *, table: dict[str, tuple[str, str]], **attributes: object
    ) -> None:
        super().__init__(name, **attributes)  # type: ignore[arg-type]
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, attribute = self._table[cmd_name][1].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args[0] in self._table or args[0].startswith("-") or ctx.resilient_parsing
        if not known:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self._table, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (text, _) in self._table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=text)
            for name, (text, _) in self._table.items()
            if name.startswith(incomplete)
        ]
        # Past click's own group, which would import every command to read its help text.
        return commands + super(click.Group, self).shell_complete(ctx, incomplete)
