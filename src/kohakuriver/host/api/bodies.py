"""Bodies of requests: their models, strict and with limits, and the dependency that reads one."""

from typing import Annotated, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from kohakuriver.host.api.body_reading import read_body
from kohakuriver.host.api.errors import invalid_input
from kohakuriver.models.enums import TaskType
from kohakuriver.models.errors import InvalidInput

Model = TypeVar("Model", bound=BaseModel)

MAX_TARGETS = 1000
MAX_ARGUMENTS = 10_000
MAX_TEXT_BYTES = 1 << 20


class JsonBody(Generic[Model]):
    """Dependency that reads the body as JSON of one model. Put it behind the permission in the signature."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    async def __call__(self, request: Request) -> Model:
        content_type = request.headers.get("content-type", "application/json")
        if content_type.split(";", 1)[0].strip().lower() != "application/json":
            # Also keeps forms of other sites out, which a browser sends without asking.
            raise InvalidInput("send the body as JSON, with 'Content-Type: application/json'")
        body = await read_body(request)
        try:
            return self.model.model_validate_json(body or b"{}")
        except ValidationError as error:
            raise invalid_input(error.errors(include_url=False, include_context=False)) from error


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


ShortText = Annotated[str, StringConstraints(max_length=4096)]
Gpu = Annotated[int, Field(ge=0, le=9999)]


class SubmitBody(_Body):
    """A command to run, once for each target, or once where there is room if no target is given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"command": "python", "arguments": ["train.py"], "required_cores": 4, "targets": ["n1"]},
                {"command": "hostname", "registry_image": "ubuntu:24.04", "required_memory_bytes": 268435456},
            ]
        }
    )

    task_type: Annotated[TaskType, Field(strict=False)] = TaskType.COMMAND
    command: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    arguments: Annotated[list[str], Field(max_length=MAX_ARGUMENTS)] | None = None
    env_vars: dict[str, str] | None = None
    required_cores: Annotated[int, Field(ge=0, le=10_000, description="0: no limit")] | None = None
    required_gpus: (
        Annotated[
            list[Annotated[list[Gpu], Field(max_length=1024)]],
            Field(max_length=MAX_TARGETS, description="GPU indices, a list for each target"),
        ]
        | None
    ) = None
    required_memory_bytes: Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="0: no limit")] | None = (
        None
    )
    targets: (
        Annotated[
            list[Annotated[str, StringConstraints(max_length=4096)]],
            Field(max_length=MAX_TARGETS, description="hostname[:numa][::gpu,gpu…]"),
        ]
        | None
    ) = None
    container_name: (
        Annotated[ShortText, Field(description="environment; the host's default if absent")] | None
    ) = None
    registry_image: ShortText | None = None
    working_dir: ShortText | None = None
    privileged: bool | None = None
    additional_mounts: (
        Annotated[list[str], Field(max_length=100, description="host:container[:ro]")] | None
    ) = None
    ip_reservation_token: ShortText | None = None
    name: ShortText | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000, description="higher first")] | None = None
    retries: (
        Annotated[int, Field(ge=0, le=100, description="attempts after one that the system lost")] | None
    ) = None


class ApproveNodeBody(_Body):
    fingerprint: Annotated[str, StringConstraints(max_length=200)] | None = None


class DrainNodeBody(_Body):
    """`move`: end tasks that may run again, so that they run on other nodes."""

    move: bool = False


class JoinTokenBody(_Body):
    expires_hours: Annotated[float, Field(gt=0, le=24 * 365, allow_inf_nan=False)] = 24


class CreateTokenBody(_Body):
    """`role`: at most one's own, which is also what it is without."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    role: Annotated[str, StringConstraints(pattern="^(viewer|user|operator|admin)$")] | None = None


class CreateContainerBody(_Body):
    image_name: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    container_name: Annotated[str, StringConstraints(min_length=1, max_length=63)]


__all__ = [
    "ApproveNodeBody",
    "CreateContainerBody",
    "CreateTokenBody",
    "DrainNodeBody",
    "JoinTokenBody",
    "JsonBody",
    "SubmitBody",
]
