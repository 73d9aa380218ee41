"""Which image a workload's container is made of: the one that it names, or a snapshot of the session."""

from collections.abc import Callable

from kohakuriver.runner.engines.contract.spec import ImageProvider, ReadyImage, WorkloadSpec
from kohakuriver.runner.engines.docker.vps.snapshots import Snapshots


async def image_for(
    spec: WorkloadSpec, images: ImageProvider, snapshots: Snapshots, on_progress: Callable[[str], None]
) -> ReadyImage:
    """Have it on this node. A snapshot has no digest of its own: the session keeps that of its image."""
    if spec.session is None:
        return await images.ensure(spec.body.image, on_progress)
    snapshot = await snapshots.chosen(spec.task_id, spec.session.restore)
    if snapshot is not None:
        return ReadyImage(snapshot)
    image = await images.ensure(spec.body.image, on_progress)
    return ReadyImage(await snapshots.base(spec.task_id, image.id), image.digest)
