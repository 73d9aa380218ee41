"""From the body of a submission to specifications of tasks, one for each target. Pure."""

import base64
import re
from dataclasses import replace

from kohakuriver.host.api.http.bodies import SubmitBody
from kohakuriver.host.api.http.container_fields import options_of
from kohakuriver.host.auth import Action, Actor, may
from kohakuriver.models.enums import TaskType
from kohakuriver.models.errors import Denied, InvalidInput, TooLarge
from kohakuriver.models.names import (
    check_env_name,
    check_environment_name,
    check_image_reference,
    check_task_name,
)
from kohakuriver.models.records import changed
from kohakuriver.models.spec.amounts import check_cores, check_memory
from kohakuriver.models.spec.capabilities import check_capabilities
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.image_references import check_pull
from kohakuriver.models.spec.mounts import parse_mount
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.models.spec.size import bytes_of_all, check_spec_size
from kohakuriver.models.spec.targets import Target, parse_target
from kohakuriver.models.spec.task_files import MAX_FILE_BYTES, TaskFile
from kohakuriver.models.tasks import TaskSpec

MAX_REQUEST_BYTES = 16 << 20
"""The most that the tasks of one request ask for together, each counted as if it were the only one."""
_NO_CONTAINER = "NULL"
"""How earlier clients ask for a process without a container."""
_MAX_ONE_TEXT = 131_071
"""The kernel takes no argument and no environment entry longer than this."""
_BLANKS = " \t\n"
_SHELL = "/bin/sh"
_SIGNS = re.compile(r"""[|&;<>()$`\\"'*?\[\n]|(?:^|[ \t])[~#!{}]""")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def specs_of(body: SubmitBody, actor: Actor) -> list[TaskSpec]:
    """Check everything that can be checked without looking at the cluster; Denied for rights not had."""
    _check_kind(body)
    options = options_of(body)
    _check_rights(body, options, actor)
    command, arguments = _text("command", body.command), tuple(_texts("arguments", body.arguments or []))
    if body.script is None:  # whose name is no command line
        command, arguments = _words_of(command, arguments)
    spec = TaskSpec(
        command=command,
        arguments=arguments,
        env_vars=environment_of(body.env_vars or {}),
        required_cores=1 if body.required_cores is None else check_cores(body.required_cores),
        required_memory_bytes=check_memory(body.required_memory_bytes or 0),
        working_dir=None if body.working_dir is None else _working_dir(body.working_dir),
        privileged=bool(body.privileged),
        capabilities=check_capabilities(body.capabilities or ()),
        options=options,
        additional_mounts=mounts_of(body.additional_mounts or []),
        name=None if body.name is None else check_task_name(body.name),
        priority=body.priority or 0,
        retries=body.retries or 0,
        grace_seconds=DEFAULT_GRACE_SECONDS if body.grace_seconds is None else body.grace_seconds,
        container_name=None if body.container_name is None else check_environment_name(body.container_name),
        registry_image=None if body.registry_image is None else check_image_reference(body.registry_image),
        stdin=_stdin(body),
        script=None if body.script is None else _file("script", body.script),
        pull=check_pull(body.pull, body.registry_image),
    )
    check_spec_size(spec)
    specs = _for_each_target(spec, body)
    if len(specs) > 1 and (size := bytes_of_all(specs)) > MAX_REQUEST_BYTES:
        raise TooLarge(
            f"{len(specs)} tasks of {size // len(specs):,} bytes are more than the "
            f"{MAX_REQUEST_BYTES >> 20} MiB that one request may ask for; put the data into a file, or name "
            "fewer targets"
        )
    return specs


def _check_kind(body: SubmitBody) -> None:
    if body.task_type is TaskType.VPS:
        raise InvalidInput("a VPS is made with POST /api/vps/create", "task_type")
    if not body.command and body.registry_image is None:
        raise InvalidInput(
            "command must have at least 1 character; only an image of a registry has a command of its own",
            "command",
        )
    if body.container_name == _NO_CONTAINER:
        raise InvalidInput(
            "a task runs in an environment here, never on the node itself; name one as container_name, or "
            "leave it out for the default one",
            "container_name",
        )
    if body.container_name is not None and body.registry_image is not None:
        raise InvalidInput("give container_name or registry_image, not both", "registry_image")
    if body.ip_reservation_token:
        raise InvalidInput(
            "there are no IP reservations on this cluster: the overlay network is off", "ip_reservation_token"
        )


def _check_rights(body: SubmitBody, options: ContainerOptions | None, actor: Actor) -> None:
    if (body.priority or 0) > 0 and not may(actor, Action.GO_FIRST):
        raise Denied(
            "a priority above 0 passes everybody and needs the role operator; leave it out, or ask one to "
            "submit it"
        )
    wanted = {
        "privileged tasks": body.privileged,
        "capabilities": body.capabilities,
        "mounts of a node's own paths": body.additional_mounts,
        **dict.fromkeys(options.ways_to_the_node if options else (), True),
    }
    what = next((what for what, asked in wanted.items() if asked), None)
    if what is None or may(actor, Action.GRANT_HOST_ACCESS):
        return
    raise Denied(f"{what} need the role operator, because they reach the node itself; ask one to submit it")


def host_access_of(spec: TaskSpec) -> str:
    """Say for the audit line by what the workload reaches the node itself; empty if it does not."""
    ways = (
        "privileged" if spec.privileged else "",
        f"capabilities {' '.join(spec.capabilities)}" if spec.capabilities else "",
        f"mounts {' '.join(spec.additional_mounts)}" if spec.additional_mounts else "",
        *(spec.options.ways_to_the_node if spec.options else ()),
    )
    return ", ".join(way for way in ways if way)


def _stdin(body: SubmitBody) -> TaskFile | None:
    if not body.stdin_streams:
        return None if body.stdin is None else _file("stdin", body.stdin)
    if body.stdin is not None:
        raise InvalidInput("give stdin or stdin_streams, not both", "stdin_streams")
    if body.retries:
        raise InvalidInput(
            "a task whose input is streamed cannot be run again; leave out retries, or put the input into a "
            "file",
            "retries",
        )
    if len(body.targets or ()) > 1:
        raise InvalidInput("input is streamed to one task; name one target", "targets")
    return TaskFile(streams=True)


def _file(field: str, text: str) -> TaskFile:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidInput(f"{field} is not base64", field) from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidInput(f"{field} is larger than {MAX_FILE_BYTES >> 10} KiB; put it into a file", field)
    return TaskFile.of(content)


def _text(field: str, text: str) -> str:
    if "\0" in text:
        raise InvalidInput(f"{field} holds a NUL character, which no program can be given", field)
    if len(text.encode()) > _MAX_ONE_TEXT:
        raise InvalidInput(f"{field} holds a text of more than 128 KiB; put the data into a file", field)
    return text


def _texts(field: str, texts: list[str]) -> list[str]:
    return [_text(f"{field}.{index}", text) for index, text in enumerate(texts)]


def environment_of(variables: dict[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in variables.items():
        check_env_name(name)
        _text(f"env_vars.{name}", f"{name}={value}")
    return tuple(variables.items())


def _working_dir(path: str) -> str:
    if not path.startswith("/") or any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise InvalidInput("working_dir must be an absolute path without control characters", "working_dir")
    return path


def mounts_of(texts: list[str]) -> tuple[str, ...]:
    mounts = []
    for index, text in enumerate(texts):
        try:
            mounts.append(str(parse_mount(text)))
        except InvalidInput as error:
            raise InvalidInput(str(error), f"additional_mounts.{index}") from error
    return tuple(mounts)


def _for_each_target(spec: TaskSpec, body: SubmitBody) -> list[TaskSpec]:
    gpus = [tuple(indices) for indices in body.required_gpus or []]
    if not body.targets:
        if any(gpus) or body.target_numa_node_id is not None:
            raise InvalidInput(
                "GPUs and NUMA nodes are asked for by number, so name the node too: targets "
                "['<node>[:<numa>][::<gpu>,…]']",
                "required_gpus" if any(gpus) else "target_numa_node_id",
            )
        return [spec]
    if gpus and len(gpus) != len(body.targets):
        raise InvalidInput(
            f"required_gpus has {len(gpus)} lists for {len(body.targets)} targets; give one for each target",
            "required_gpus",
        )
    specs = []
    for index, text in enumerate(body.targets):
        target, indices = _target(index, text, gpus[index] if gpus else ())
        target = _on_numa_node(target, body.target_numa_node_id)
        specs.append(changed(spec, target=target, required_gpus=indices))
    return specs


def _on_numa_node(target: Target, numa_node: int | None) -> Target:
    """The NUMA node stands in the target, or in a field of its own; both must say the same."""
    if numa_node is None:
        return target
    if target.numa_node not in (None, numa_node):
        raise InvalidInput(
            f"target {target} and target_numa_node_id name different NUMA nodes", "target_numa_node_id"
        )
    return replace(target, numa_node=numa_node)


def _target(index: int, text: str, listed: tuple[int, ...]) -> tuple[Target, tuple[int, ...]]:
    """Join the GPUs that stand in the target with those of `required_gpus`; both must say the same."""
    try:
        target = parse_target(text)
    except InvalidInput as error:
        raise InvalidInput(str(error), f"targets.{index}") from error
    if len(set(listed)) != len(listed):
        raise InvalidInput(f"required_gpus names a GPU twice for {text}", f"required_gpus.{index}")
    if listed and target.gpus and set(listed) != set(target.gpus):
        raise InvalidInput(
            f"target {text} and its entry in required_gpus name different GPUs", f"required_gpus.{index}"
        )
    indices = tuple(sorted(listed or target.gpus))
    return replace(target, gpus=indices), indices


def _words_of(command: str, arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return what is run for the two: a program and its arguments.

    A command may be a whole line, as earlier clients send it and people type it between quotes. Plain words
    become the program and its arguments, which also works in images that hold no shell. A line with signs
    that mean something to a shell is one for `/bin/sh`. With arguments beside it, a command is the name of a
    program, whatever is in it.
    """
    if arguments or not any(blank in command for blank in _BLANKS):
        return command, arguments
    words = command.split()
    if not words:
        raise InvalidInput("command is blank; name a program, or send a command line", "command")
    if _SIGNS.search(command) or _ASSIGNMENT.match(words[0]):
        return _SHELL, ("-c", command)
    return words[0], tuple(words[1:])
