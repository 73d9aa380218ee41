"""Bodies of requests: their models, strict and with limits, and the dependency that reads one."""

import asyncio
from typing import Annotated, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from kohakuriver.host.api.http.auditing import trail_of
from kohakuriver.host.api.http.body_reading import SMALL_BODY_BYTES, body_size, read_sized
from kohakuriver.host.api.http.container_fields import ContainerFields, TaskContainerFields
from kohakuriver.host.api.http.errors import invalid_input
from kohakuriver.host.api.parts import ApiParts
from kohakuriver.models.enums import OrphanChoice, PullPolicy, SshKeyMode, TaskType, VpsBackend
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.amounts import MOST_CORES
from kohakuriver.models.spec.signals import MAX_GRACE_SECONDS
from kohakuriver.models.spec.task_files import MAX_FILE_BYTES

Model = TypeVar("Model", bound=BaseModel)

MAX_TARGETS = 1000
MAX_ARGUMENTS = 10_000
MAX_VARIABLES = 4096
_LARGE_BYTES = 1 << 20
"""Reading more than this would keep the loop from everything else."""


class JsonBody(Generic[Model]):
    """Dependency that reads the body as JSON of one model. Put it behind the permission in the signature.

    `max_bytes`: what the largest body of that route needs.
    """

    def __init__(self, model: type[Model], max_bytes: int = SMALL_BODY_BYTES) -> None:
        self.model = model
        self._max_bytes = max_bytes

    async def __call__(self, request: Request) -> Model:
        """Give the model; what the body takes up counts for its sender until the request is answered."""
        parts: ApiParts = request.app.state.parts
        actor = trail_of(request.scope).actor
        size = body_size(request, self._max_bytes)
        parts.user_shares.hold(request.scope, actor.name if actor else "", size)
        return await self._read(request)

    async def _read(self, request: Request) -> Model:
        content_type = request.headers.get("content-type", "application/json")
        if content_type.split(";", 1)[0].strip().lower() != "application/json":
            # Also keeps forms of other sites out, which a browser sends without asking.
            raise InvalidInput("send the body as JSON, with 'Content-Type: application/json'")
        body = await read_sized(request, self._max_bytes)
        try:
            if len(body) > _LARGE_BYTES:
                return await asyncio.to_thread(self.model.model_validate_json, body)
            return self.model.model_validate_json(body or b"{}")
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False)
            raise invalid_input(faults, self.model.model_fields) from error


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


ShortText = Annotated[str, StringConstraints(max_length=4096)]
MountText = Annotated[str, StringConstraints(max_length=8400)]
"""Two paths, each as long as the kernel takes one."""
FileText = Annotated[str, StringConstraints(max_length=(MAX_FILE_BYTES + 2) // 3 * 4)]
Variables = Annotated[dict[str, str], Field(max_length=MAX_VARIABLES)]
PublicKey = Annotated[str, StringConstraints(max_length=20_000)]
CoresField = Annotated[
    float,
    Field(ge=0, le=MOST_CORES, allow_inf_nan=False, description="parts of a core too; 0: no limit"),
]
Gpu = Annotated[int, Field(ge=0, le=9999)]
Capabilities = Annotated[
    list[Annotated[str, StringConstraints(max_length=40)]],
    Field(max_length=100, description="rights beyond those of every workload, such as NET_RAW"),
]


Pull = Annotated[
    PullPolicy, Field(strict=False, description="whether the registry is asked for registry_image: missing")
]


class SubmitBody(TaskContainerFields):
    """A command to run, once for each target, or once where there is room if no target is given.

    A `command` with blanks in it and no `arguments` is a command line: plain words, or one for `/bin/sh -c`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"command": "python", "arguments": ["train.py"], "required_cores": 4, "targets": ["n1"]},
                {"command": "hostname", "registry_image": "ubuntu:24.04", "required_memory_bytes": 268435456},
            ]
        }
    )

    task_type: Annotated[TaskType, Field(strict=False)] = TaskType.COMMAND
    command: Annotated[
        str, StringConstraints(max_length=4096), Field(description="absent: what the registry image says")
    ] = ""
    arguments: Annotated[list[str], Field(max_length=MAX_ARGUMENTS)] | None = None
    env_vars: Variables | None = None
    required_cores: CoresField | None = None
    required_gpus: (
        Annotated[
            list[Annotated[list[Gpu], Field(max_length=1024)]],
            Field(max_length=MAX_TARGETS, description="GPU indices, a list for each target"),
        ]
        | None
    ) = None
    required_memory_bytes: (
        Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="0: the node's default")] | None
    ) = None
    targets: (
        Annotated[
            list[Annotated[str, StringConstraints(max_length=4096)]],
            Field(max_length=MAX_TARGETS, description="hostname[:numa][::gpu,gpu…]"),
        ]
        | None
    ) = None
    target_numa_node_id: (
        Annotated[int, Field(ge=0, le=9999, description="for targets that name none")] | None
    ) = None
    container_name: (
        Annotated[ShortText, Field(description="environment; the host's default if absent")] | None
    ) = None
    registry_image: ShortText | None = None
    working_dir: ShortText | None = None
    privileged: bool | None = None
    capabilities: Capabilities | None = None
    additional_mounts: (
        Annotated[list[MountText], Field(max_length=100, description="host:container[:ro]")] | None
    ) = None
    ip_reservation_token: ShortText | None = None
    name: ShortText | None = None
    priority: (
        Annotated[int, Field(ge=-1000, le=1000, description="higher first; above 0: operators")] | None
    ) = None
    retries: (
        Annotated[int, Field(ge=0, le=100, description="attempts after one that the system lost")] | None
    ) = None
    stdin: Annotated[FileText, Field(description="standard input, in base64; 256 KiB at most")] | None = None
    stdin_streams: (
        Annotated[bool, Field(description="it is sent over /ws/task/{task_id}/stdin while the task runs")]
        | None
    ) = None
    script: (
        Annotated[FileText, Field(description="run in place of the program `command`, in base64")] | None
    ) = None
    pull: Pull | None = None
    grace_seconds: (
        Annotated[int, Field(ge=0, le=MAX_GRACE_SECONDS, description="between SIGTERM and SIGKILL")] | None
    ) = None


class CreateVpsBody(ContainerFields):
    """A VPS to create. `ssh_key_mode` absent: `upload` with a public key, else `disabled`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "lab", "required_cores": 2, "ssh_key_mode": "generate"},
                {"registry_image": "debian:12", "required_memory_bytes": 1073741824, "target_hostname": "n1"},
            ]
        }
    )

    name: ShortText | None = None
    required_cores: CoresField | None = None
    required_gpus: Annotated[list[Gpu], Field(max_length=1024)] | None = None
    required_memory_bytes: (
        Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="0: the node's default")] | None
    ) = None
    target_hostname: ShortText | None = None
    target_numa_node_id: Annotated[int, Field(ge=0, le=9999)] | None = None
    container_name: (
        Annotated[ShortText, Field(description="environment; the host's default if absent")] | None
    ) = None
    registry_image: ShortText | None = None
    ssh_key_mode: Annotated[SshKeyMode, Field(strict=False)] | None = None
    ssh_public_key: PublicKey | None = None
    ssh_public_keys: Annotated[list[PublicKey], Field(max_length=100)] | None = None
    env_vars: Variables | None = None
    privileged: bool | None = None
    capabilities: Capabilities | None = None
    additional_mounts: (
        Annotated[list[MountText], Field(max_length=100, description="host:container[:ro]")] | None
    ) = None
    ip_reservation_token: ShortText | None = None
    vps_backend: Annotated[VpsBackend, Field(strict=False)] = VpsBackend.DOCKER
    vm_image: ShortText | None = None
    vm_disk_size: ShortText | None = None
    memory_mb: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    pull: Pull | None = None


class SnapshotBody(_Body):
    message: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class RestoreBody(_Body):
    """`target_hostname`: where a stopped VPS goes on; absent: on its own node."""

    target_hostname: ShortText | None = None


class AssignmentBody(_Body):
    username: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class AssignNumbersBody(RootModel[list[Annotated[int, Field(ge=1, le=1 << 31)]]]):
    """The numbers of users."""

    model_config = ConfigDict(strict=True, frozen=True)


class ApproveNodeBody(_Body):
    fingerprint: Annotated[str, StringConstraints(max_length=200)] | None = None


class RejectNodeBody(_Body):
    """`fingerprint`: refuse that one of the runners that wait under the name."""

    fingerprint: Annotated[str, StringConstraints(max_length=200)] | None = None


class DrainNodeBody(_Body):
    """`move`: end tasks that may run again, so that they run on other nodes."""

    move: bool = False


class OrphansBody(_Body):
    """`from_node`: the name under which the work stands that is to go on, or to end."""

    from_node: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    choice: OrphanChoice


class JoinTokenBody(_Body):
    expires_hours: Annotated[float, Field(gt=0, le=24 * 365, allow_inf_nan=False)] = 24


class CreateTokenBody(_Body):
    """`role`: at most one's own, which is also what it is without."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    role: Annotated[str, StringConstraints(pattern="^(viewer|user|operator|admin)$")] | None = None


class RegistryLoginBody(_Body):
    """`password` may be a token of the registry."""

    registry: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    username: Annotated[
        str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^:\x00-\x1f\x7f]+$")
    ]
    password: Annotated[str, StringConstraints(min_length=1, max_length=16_000, pattern=r"^[^\x00]+$")]


class CreateContainerBody(_Body):
    image_name: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    container_name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    pull: Pull = PullPolicy.MISSING


__all__ = [
    "ApproveNodeBody",
    "AssignNumbersBody",
    "AssignmentBody",
    "CreateContainerBody",
    "CreateTokenBody",
    "CreateVpsBody",
    "DrainNodeBody",
    "JoinTokenBody",
    "JsonBody",
    "RegistryLoginBody",
    "RejectNodeBody",
    "RestoreBody",
    "SnapshotBody",
    "SubmitBody",
]
