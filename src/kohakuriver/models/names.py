"""Names on a node and the rules that user-given names obey; nothing without `LABEL_MANAGED` is touched."""

import re

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.image_references import parse_image_reference

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


SANDBOX_NAME = "kohakuriver-sandbox-"
"""Beginning of the names of sandboxes' containers."""
LABEL_MANAGED = "kohakuriver.managed"
LABEL_TASK_ID = "kohakuriver.task_id"
LABEL_TASK_TYPE = "kohakuriver.task_type"
LABEL_NODE = "kohakuriver.node"
LABEL_ATTEMPT = "kohakuriver.attempt"
LABEL_CLUSTER = "kohakuriver.cluster"
"""Id of the cluster that made it; what an earlier version made lacks it."""
LABEL_SANDBOX = "kohakuriver.sandbox"
LABEL_TUNNEL = "kohakuriver.tunnel"
"""On a sandbox: the folder that holds its secret."""
LABEL_ENVIRONMENT = "kohakuriver.environment"
LABEL_SNAPSHOT = "kohakuriver.snapshot"
"""On the image of a VPS's snapshot: its task."""

_ENVIRONMENT = re.compile(r"(?=.{1,63}\Z)[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
"""A part of an image's name, as engines define it: no `..`, `._` or `___`, which they would refuse."""
_KINDS = ("task", "vps", "env", "draft", "sandbox", "accounts")
_OWN_CONTAINERS = tuple(f"kohakuriver-{kind}-" for kind in _KINDS)
_TARBALL = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)-(?P<time>[0-9]{1,12})\.tar")
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VPS_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}")


def task_container_name(task_id: TaskId) -> str:
    return f"kohakuriver-task-{task_id}"


def vps_container_name(task_id: TaskId) -> str:
    return f"kohakuriver-vps-{task_id}"


def snapshot_repository(task_id: TaskId) -> str:
    """Images of a VPS's snapshots; the tag is the unix time."""
    return f"kohakuriver-snapshot/vps-{task_id}"


def environment_container_name(environment: str) -> str:
    return f"kohakuriver-env-{environment}"


def is_own_container_name(name: str) -> bool:
    """Whether a container of this name is one that a runner or host makes, also for a moment."""
    return name.startswith(_OWN_CONTAINERS)


def environment_image(environment: str, tag: str = "base") -> str:
    """Image under which an environment is known on a node; `base` is the current one."""
    return f"kohakuriver/{environment}:{tag}"


def tarball_name(environment: str, unix_time: int) -> str:
    return f"{environment}-{unix_time}.tar"


def parse_tarball_name(filename: str) -> tuple[str, int] | None:
    """Return (environment, unix time), or None for a file that is no environment's tarball."""
    match = _TARBALL.fullmatch(filename)
    if match is None or _ENVIRONMENT.fullmatch(match["name"]) is None:
        return None
    return match["name"], int(match["time"])


def check_environment_name(name: str) -> str:
    if _ENVIRONMENT.fullmatch(name) is None:
        raise InvalidInput(
            f"{name[:80]!r} is not an environment's name: use 1 to 63 of a-z and 0-9, "
            "with '.', '_' or '-' between them",
            field="container_name",
        )
    return name


def check_image_reference(reference: str) -> str:
    """Refuse what is no image of a registry: see `image_references`."""
    parse_image_reference(reference)
    return reference


def check_task_name(name: str) -> str:
    if _TASK_NAME.fullmatch(name) is None or name.isdigit():
        raise InvalidInput(
            f"{name[:80]!r} is not a task's name: use 1 to 63 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit and not only digits",
            field="name",
        )
    return name


def check_vps_name(name: str) -> str:
    """A VPS's name is also its host name."""
    if _VPS_NAME.fullmatch(name) is None or name.isdigit():
        raise InvalidInput(
            f"{name[:80]!r} is not a VPS's name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending "
            "with a letter or digit and not only digits",
            field="name",
        )
    return name


def check_env_name(name: str) -> str:
    if _ENV_NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of an environment variable: use letters, digits, '_', '.' "
            "and '-', beginning with a letter or '_'",
            field="env_vars",
        )
    return name


def is_fingerprint(text: str) -> bool:
    """Of a key, in the form that `wire.trust.identity` makes and people copy."""
    return _FINGERPRINT.fullmatch(text) is not None
