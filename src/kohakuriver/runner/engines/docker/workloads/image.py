"""Which image a workload's container is made of: the one that it names, or a snapshot of the VPS; and
what it says is to run, for a task that says nothing of it or only with which arguments.

That is its ENTRYPOINT with the task's arguments, or with its CMD where there are none; its WORKDIR, unless
the task names a folder; its USER, where tasks of the node are root and the task names no user. Of images
whose command the task names itself, none of these has a say.
"""

from collections.abc import Callable
from dataclasses import replace

from msgspec import structs

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError
from kohakuriver.models.spec.container_options import check_user
from kohakuriver.runner.engines.contract.spec import ImageProvider, ReadyImage, WorkloadSpec
from kohakuriver.runner.engines.docker.snapshots.snapshots import Snapshots
from kohakuriver.runner.engines.docker.workloads.start_errors import create_fault


async def image_for(
    spec: WorkloadSpec, images: ImageProvider, snapshots: Snapshots, on_progress: Callable[[str], None]
) -> ReadyImage:
    """Have it on this node. A snapshot has no digest of its own: the VPS keeps that of its image."""
    if spec.session is None:
        return await images.ensure(spec.body.image, on_progress)
    snapshot = await snapshots.chosen(spec.task_id, spec.session.restore)
    if snapshot is not None:
        return ReadyImage(snapshot)
    image = await images.ensure(spec.body.image, on_progress)
    return ReadyImage(await snapshots.base(spec.task_id, image.id), image.digest)


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
