"""The fields of a body that ask something of the container, and what becomes of them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kohakuriver.models.spec.container_options import (
    MAX_DEVICE_LENGTH,
    MAX_DEVICES,
    MAX_SHM_BYTES,
    MAX_ULIMITS,
    ContainerOptions,
    checked_options,
)

_Text = Annotated[str, StringConstraints(max_length=100)]
_DeviceText = Annotated[str, StringConstraints(max_length=MAX_DEVICE_LENGTH)]


class ContainerFields(BaseModel):
    """What tasks and VPSs ask for alike."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    shm_size_bytes: (
        Annotated[int, Field(ge=0, le=MAX_SHM_BYTES, description="of /dev/shm; 0: half of the memory")] | None
    ) = None
    ulimits: (
        Annotated[
            list[_Text], Field(max_length=MAX_ULIMITS, description="name=soft[:hard], such as memlock=-1")
        ]
        | None
    ) = None
    ipc: Annotated[_Text, Field(description="private, none, or host, for operators")] | None = None
    devices: (
        Annotated[
            list[_DeviceText],
            Field(max_length=MAX_DEVICES, description="/dev/x[:/dev/y][:rwm], for operators"),
        ]
        | None
    ) = None


class TaskContainerFields(ContainerFields):
    """The same, and what only tasks ask for."""

    user: Annotated[_Text, Field(description="USER[:GROUP], where tasks of the node are root")] | None = None
    hostname: _Text | None = None


def options_of(body: ContainerFields) -> ContainerOptions | None:
    """Return what is asked for, checked; None for nothing, so that most records stay small."""
    of_task = body if isinstance(body, TaskContainerFields) else TaskContainerFields()
    options = checked_options(
        ContainerOptions(
            shm_size_bytes=body.shm_size_bytes or 0,
            ulimits=tuple(body.ulimits or ()),
            ipc=body.ipc or "",
            devices=tuple(body.devices or ()),
            user=of_task.user or "",
            hostname=of_task.hostname or "",
        )
    )
    return None if options == ContainerOptions() else options
