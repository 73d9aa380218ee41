"""Images of registries onto this node, for tasks that name one.

Rules: an image is used only if it was pulled for a task, and is still what was pulled, or if the node's
administrator names it in LOCAL_IMAGES; else it is pulled. What is given to the engine is an id, so that
nothing takes its place between this look and the container.
"""

from collections.abc import Sequence

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, pull_image
from kohakuriver.dockerapi.pulling import RegistryBusy, with_patience
from kohakuriver.models.errors import EngineFault, NotFound
from kohakuriver.models.image_references import parse_image_reference
from kohakuriver.runner.engines.base import RegistryAway
from kohakuriver.runner.engines.storage_faults import NoRoom, no_room_sentence, says_full, storage_fault
from kohakuriver.runner.images.pulled_images import PulledImages
from kohakuriver.runner.images.single_flight import Progress


class RegistryImages:
    """`local_images` is LOCAL_IMAGES, `timeout_seconds` DOCKER_IMAGE_SYNC_TIMEOUT, past which the caller ends
    a pull. Not locked: one call at a time for each image.
    """

    def __init__(
        self,
        api: DockerApi,
        pulled: PulledImages,
        timeout_seconds: float,
        local_images: Sequence[str] = (),
    ) -> None:
        self._api = api
        self._pulled = pulled
        self._timeout_seconds = timeout_seconds
        self._local = frozenset(parse_image_reference(text).whole for text in local_images)

    async def sync(self, text: str, report: Progress) -> str:
        """Return the image's id; InvalidInput for a name that is none, EngineFault or NotFound.

        RegistryAway: the registry was busy or away for as long as there was time.
        """
        reference = parse_image_reference(text).whole
        facts = await inspect_image(self._api, reference)
        if facts is not None and (
            reference in self._local or facts.id == await self._pulled.id_of(reference)
        ):
            return facts.id
        report(f"pulling {text}")
        await self._pull(text, reference, report)
        facts = await inspect_image(self._api, reference)
        if facts is None:
            raise EngineFault(f"the engine pulled image {text} and does not have it; submit the task again")
        try:
            await self._pulled.note(reference, facts.id)
        except OSError as error:
            raise storage_fault("the record of pulled images", self._pulled.path, error) from error
        return facts.id

    async def _pull(self, text: str, reference: str, report: Progress) -> None:
        try:
            await with_patience(
                lambda: pull_image(self._api, reference, report),
                f"pulling {text}",
                self._timeout_seconds,
                report,
            )
        except (EngineFault, NotFound) as error:
            if says_full(str(error)):
                raise NoRoom(no_room_sentence(f"image {text}", error)) from error
            kind = RegistryAway if isinstance(error, RegistryBusy) else type(error)
            # Whether an image of that name is here is not told: it is none of the submitter's business.
            raise kind(
                f"image {text} was not pulled for tasks of this node before and cannot be pulled: {error}; "
                "check its name, and that the node reaches the registry. Without a registry, make an "
                "environment of it, or have the node's administrator name it in LOCAL_IMAGES"
            ) from error
