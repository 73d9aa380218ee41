"""Questions before what cannot be taken back."""

import sys

import click

from kohakuriver.cli.console.plain_text import neutralised


def ask_first(question: str, yes: bool) -> None:
    """Go on if the user says so, or has (`--yes`); where nobody can be asked, raise UsageError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; say --yes to delete without a question")
    click.confirm(neutralised(question), abort=True, err=True)
