"""The options of `vps create` about SSH, and the one choice that they come to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import InvalidInput

_OWN_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
_LARGEST_KEY_FILE_BYTES = 1 << 20

SSH_OPTIONS = (
    click.option("--ssh", is_flag=True, help="SSH with your own key, or with a new one if you have none."),
    click.option(
        "--gen-ssh-key", is_flag=True, help="SSH with a key that is made now and shown never again."
    ),
    click.option(
        "--no-ssh-key", is_flag=True, help="SSH without a password, only through the host's gateway."
    ),
    click.option(
        "--public-key-file",
        "key_files",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="SSH with the public keys of this file; may be repeated.",
    ),
    click.option(
        "--public-key-string",
        "key_strings",
        multiple=True,
        metavar="KEY",
        help="SSH with this public key; may be repeated.",
    ),
    click.option(
        "--key-out-file",
        "key_out",
        metavar="FILE",
        help="Where the new private key goes instead of ~/.kohakuriver/keys/NAME; - is standard output.",
    ),
    click.option("--force", is_flag=True, help="Write over a key file that is there already."),
)


@dataclass(frozen=True, slots=True)
class SshChoice:
    """`key_out`: where a generated key goes, None for its usual place; `-` is standard output."""

    mode: SshKeyMode
    public_keys: tuple[str, ...] = ()
    key_out: str | None = None
    overwrite: bool = False


def ssh_choice(options: dict[str, Any]) -> SshChoice:
    """Read the options; raises UsageError for those that contradict each other, InvalidInput for bad keys."""
    given = bool(options["key_files"] or options["key_strings"])
    if given + options["gen_ssh_key"] + options["no_ssh_key"] > 1:
        raise click.UsageError(
            "--public-key-file and --public-key-string, --gen-ssh-key and --no-ssh-key exclude each other"
        )
    choice = _chosen(options, given)
    if choice.mode is not SshKeyMode.GENERATE and (options["key_out"] or options["force"]):
        raise click.UsageError("--key-out-file and --force are for a key that --gen-ssh-key makes")
    return choice


def _chosen(options: dict[str, Any], given: bool) -> SshChoice:
    if options["no_ssh_key"]:
        return SshChoice(SshKeyMode.NONE)
    if given:
        return SshChoice(SshKeyMode.UPLOAD, _given_keys(options))
    wants_new = options["gen_ssh_key"] or (options["ssh"] and options["key_out"])
    own = _own_key() if options["ssh"] and not wants_new else None
    if own is not None:
        return SshChoice(SshKeyMode.UPLOAD, _keys_of(own))
    if wants_new or options["ssh"]:
        return SshChoice(SshKeyMode.GENERATE, (), options["key_out"], options["force"])
    return SshChoice(SshKeyMode.DISABLED)


def _given_keys(options: dict[str, Any]) -> tuple[str, ...]:
    from kohakuriver.models.spec.ssh_keys import check_public_key

    keys = [key for path in options["key_files"] for key in _keys_of(path)]
    keys += [check_public_key(text) for text in options["key_strings"]]
    return tuple(dict.fromkeys(keys))


def _own_key() -> Path | None:
    folder = Path(os.path.expanduser("~")) / ".ssh"
    return next((folder / name for name in _OWN_KEYS if (folder / name).is_file()), None)


def _keys_of(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; empty lines and those that begin with # are left out."""
    from kohakuriver.models.spec.ssh_keys import check_public_key

    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_KEY_FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    lines = [line.strip() for line in text.splitlines()]
    try:
        keys = tuple(check_public_key(line) for line in lines if line and not line.startswith("#"))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    if not keys:
        raise InvalidInput(f"{path} holds no public key")
    return keys
