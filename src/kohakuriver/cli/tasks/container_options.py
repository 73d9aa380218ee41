"""Options that ask something of the container, written as Docker's command line writes them."""

from typing import Any

import click

from kohakuriver.cli import params

WORKLOAD_CONTAINER_OPTIONS = (
    click.option("--shm-size", type=params.SIZE, help="Size of /dev/shm; none: half of the memory."),
    click.option(
        "--ulimit",
        multiple=True,
        type=params.ULIMIT,
        help="Limit NAME=SOFT[:HARD], such as nofile=65536; -1 is none. Repeat for more.",
    ),
    click.option("--ipc", type=click.Choice(["private", "none", "host"]), help="IPC; host is for operators."),
    click.option(
        "--device",
        multiple=True,
        type=params.DEVICE,
        help="Device /dev/X[:/dev/Y][:rwm] of the node, for operators; repeat for more.",
    ),
)
TASK_CONTAINER_OPTIONS = (
    click.option(
        "-u",
        "--user",
        type=params.USER,
        metavar="USER[:GROUP]",
        help="User to run as, where tasks of the node are root; root if not given.",
    ),
    click.option("--hostname", type=params.HOSTNAME, help="Host name that the task sees."),
    click.option(
        "--entrypoint", metavar="PROGRAM", help="Program to run, with the words of COMMAND as its arguments."
    ),
    click.option(
        "--image-entrypoint",
        is_flag=True,
        help="Hand COMMAND to the image's own entry point, as `docker run` does.",
    ),
)


def container_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of a request, by the options that tasks and VPSs share."""
    return {
        "shm_size_bytes": options["shm_size"],
        "ulimits": list(options["ulimit"]),
        "ipc": options["ipc"],
        "devices": list(options["device"]),
    }


def task_container_fields(options: dict[str, Any]) -> dict[str, Any]:
    return {**container_fields(options), "user": options["user"], "hostname": options["hostname"]}


def command_words(words: tuple[str, ...], options: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return program and arguments; no program: the image's own. Raises UsageError."""
    program, by_image = options["entrypoint"], options["image_entrypoint"]
    if program is not None and by_image:
        raise click.UsageError("--entrypoint and --image-entrypoint exclude each other")
    if program == "" or (words and not words[0] and not program):
        raise click.UsageError("an empty word is no program")
    if program is not None:
        return program, words
    if by_image or not words:
        if not options["image"]:
            raise click.UsageError("give a COMMAND; only a registry image (--image) has one of its own")
        return "", words
    return words[0], words[1:]
