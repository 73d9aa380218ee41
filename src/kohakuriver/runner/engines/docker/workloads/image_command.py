"""What an image says is to run, for a task that says nothing of it or only with which arguments.

Its ENTRYPOINT with the task's arguments, or with its CMD where there are none; its WORKDIR, unless the task
names a folder; its USER, where tasks of the node are root and the task names no user. Of images whose command
the task names itself, none of these has a say.
"""

from dataclasses import replace

from msgspec import structs

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError
from kohakuriver.models.spec.container_options import check_user
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.workloads.start_errors import create_fault


async def with_image_command(api: DockerApi, spec: WorkloadSpec, image: str) -> WorkloadSpec:
    """Return the spec with what is to run; EngineFault for an image that says nothing."""
    body = spec.body
    if not body.image_command:
        return spec
    try:
        config = (await api.json("GET", f"images/{image}/json")).get("Config") or {}
    except KohakuRiverError as error:
        raise create_fault(error, spec, image) from error
    argv = (*(config.get("Entrypoint") or ()), *(spec.argv or config.get("Cmd") or ()))
    if not argv:
        raise EngineFault(f"image {body.image.registry_image} has no command of its own; give the task one")
    user = body.options.user or _user(spec, config.get("User") or "")
    return replace(
        spec,
        argv=argv,
        working_dir=_folder(spec, config.get("WorkingDir") or ""),
        body=structs.replace(body, image_command=False, options=replace(body.options, user=user)),
    )


def _folder(spec: WorkloadSpec, wanted: str) -> str:
    return wanted if spec.body.image_folder and wanted.startswith("/") else spec.working_dir


def _user(spec: WorkloadSpec, wanted: str) -> str:
    if not wanted or spec.user.uid != 0:
        return ""
    try:
        return check_user(wanted)
    except InvalidInput as error:
        raise EngineFault(
            f"image {spec.body.image.registry_image} is to run as {wanted[:60]!r}, which is no user"
        ) from error
