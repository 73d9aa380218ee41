"""The options that say what a workload needs: those of `run` and `task submit`, and what VPSs share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kohakuriver.cli import params
from kohakuriver.cli.completion import complete_environments, complete_nodes
from kohakuriver.cli.tasks.container_options import (
    TASK_CONTAINER_OPTIONS,
    WORKLOAD_CONTAINER_OPTIONS,
    command_words,
    task_container_fields,
)
from kohakuriver.cli.tasks.environment_words import variables_of
from kohakuriver.cli.tasks.local_script import local_script
from kohakuriver.cli.tasks.standard_input import NO_INPUT, OwnInput
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS

if TYPE_CHECKING:
    from kohakuriver.client.records import Submission

F = TypeVar("F", bound=Callable[..., Any])

COMMAND_SETTINGS = {"allow_interspersed_args": False}
"""Options after the first word of the command belong to the command."""

_TARGET_OPTION = click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    type=params.TARGET,
    shell_complete=complete_nodes,
    help="Node to run on, as NODE[:NUMA][::GPU,GPU…]; repeat for one task on each.",
)
_FOLDER, _FOLDER_HELP = ("--workdir",), "Working directory in the container."
WORKLOAD_OPTIONS = (
    click.option(
        "-c",
        "--cores",
        type=params.CORES,
        default=1,
        show_default=True,
        help="Cores, parts of one too (0.5); 0 sets no limit.",
    ),
    click.option(
        "-m",
        "--memory",
        type=params.MEMORY,
        help="Memory limit: 256M, 1.5G, or bytes; none: the node's default.",
    ),
    click.option(
        "--container",
        type=params.ENVIRONMENT,
        shell_complete=complete_environments,
        help="Environment to run in; the cluster's default one if neither this nor --image is given.",
    ),
    click.option("--image", type=params.IMAGE, help="Registry image to run in."),
    click.option(
        "--pull",
        type=click.Choice([policy.value for policy in PullPolicy]),
        help="Ask the registry for --image: each time, where the node has none (the default), or never.",
    ),
    click.option(
        "-e",
        "--env",
        multiple=True,
        type=params.ENV_PAIR,
        help="Environment variable NAME=VALUE, or NAME for its value here.",
    ),
    click.option(
        "--env-file", multiple=True, type=params.ENV_FILE, help="File of such variables, one a line."
    ),
    click.option("--privileged", is_flag=True, help="Run with all rights over the node."),
    click.option(
        "--cap-add",
        multiple=True,
        type=params.CAPABILITY,
        help="Give it a capability that workloads have not, such as NET_RAW; repeat for more.",
    ),
    click.option(
        "-v",
        "--volume",
        "--mount",
        "mount",
        multiple=True,
        type=params.MOUNT,
        help="Mount a path of the node: NODE-PATH:PATH[:ro].",
    ),
    *WORKLOAD_CONTAINER_OPTIONS,
)
"""What tasks and VPSs are asked for alike."""

_OPTIONS = (
    _TARGET_OPTION,
    *WORKLOAD_OPTIONS,
    *TASK_CONTAINER_OPTIONS,
    click.option("--ip-token", help="Token of a reserved address."),
    click.option("--name", type=params.TASK_NAME, help="Name to call the task by."),
    click.option(
        "--priority",
        type=click.IntRange(-1000, 1000),
        default=0,
        show_default=True,
        help="Place in the queue; higher goes first. Above 0 it needs the role operator.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        default=0,
        show_default=True,
        help="Begin again so many times if node or engine lose the task. It must bear being run again.",
    ),
    click.option(
        "--script/--no-script",
        default=None,
        help="COMMAND is a script of this machine, which is sent along; or never is. By itself it is one if "
        "it is the plain name of a file of this folder that begins with #!.",
    ),
    click.option(
        "--grace",
        type=click.IntRange(0, MAX_GRACE_SECONDS),
        metavar="SECONDS",
        show_default=str(DEFAULT_GRACE_SECONDS),
        help="What a kill leaves its processes between SIGTERM and SIGKILL.",
    ),
    click.option(*_FOLDER, help=_FOLDER_HELP),
)


def submission_options(function: F) -> F:
    """Give a command the options of a submission, for `build_submission` to read, and the COMMAND itself."""
    return _with_options(function, _OPTIONS)


def run_options(function: F) -> F:
    """The same, with -w for the working directory, as Docker has it; `task submit -w` waits."""
    return _with_options(function, (*_OPTIONS[:-1], click.option("-w", *_FOLDER, help=_FOLDER_HELP)))


def _with_options(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        function = option(function)
    return click.argument("command", nargs=-1, type=click.UNPROCESSED)(function)


def build_submission(
    command: tuple[str, ...], options: dict[str, Any], given: OwnInput = NO_INPUT
) -> "Submission":
    """Make the body of a submission; raises UsageError for options that contradict each other."""
    from kohakuriver.client.records import Submission

    check_options(options)
    if not all(map(is_text, command)):
        raise click.UsageError("the command must be valid UTF-8 text")
    program, arguments = command_words(command, options)
    return Submission(
        command=program,
        arguments=list(arguments),
        env_vars=variables_of(options),
        required_cores=options["cores"],
        required_memory_bytes=options["memory"],
        targets=list(options["targets"]) or None,
        container_name=options["container"],
        registry_image=options["image"],
        working_dir=options["workdir"],
        privileged=options["privileged"] or None,
        capabilities=list(options["cap_add"]),
        additional_mounts=list(options["mount"]) or None,
        **task_container_fields(options),
        ip_reservation_token=options["ip_token"],
        name=options["name"],
        priority=options["priority"],
        retries=options["retries"],
        pull=options["pull"],
        grace_seconds=options["grace"],
        stdin=None if given.streams else given.content,
        stdin_streams=given.streams,
        script=local_script(program, options["script"]),
    )


def check_options(options: dict[str, Any]) -> None:
    """Raise UsageError for WORKLOAD_OPTIONS that contradict each other."""
    if options["container"] and options["image"]:
        raise click.UsageError("--container and --image exclude each other: a workload runs in one image")
    if options["pull"] and not options["image"]:
        raise click.UsageError("--pull is about a registry image; give --image too")


def is_text(value: str) -> bool:
    """Bytes of the command line that are no UTF-8 arrive as lone surrogates, which JSON cannot carry."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
