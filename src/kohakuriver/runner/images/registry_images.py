"""Images of registries onto this node, for tasks that name one.

Rules: an image is used only if it was pulled for a task, and is still what was pulled, or if the node's
administrator names it in LOCAL_IMAGES; else it is pulled. What is given to the engine is an id, so that
nothing takes its place between this look and the container.
"""

from collections.abc import Sequence

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import ImageFacts, inspect_image
from kohakuriver.dockerapi.pull_faults import ExplainedPullFault
from kohakuriver.dockerapi.pulling import RegistryBusy, with_patience
from kohakuriver.dockerapi.registry_auth import pull_with
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import EngineFault, NotFound
from kohakuriver.models.spec.image_references import ImageReference, parse_image_reference
from kohakuriver.runner.engines.contract.faults import (
    NodeFault,
    NoDiskSpace,
    RegistryUnavailable,
    no_disk_space_sentence,
    says_broken,
    says_full,
    storage_fault,
)
from kohakuriver.runner.engines.contract.spec import ReadyImage
from kohakuriver.runner.images.pulled_images import PulledImages
from kohakuriver.runner.images.registry_logins import RegistryLogins
from kohakuriver.runner.images.single_flight import Progress

_ADVICE = (
    "; check its name, and that the node reaches the registry. Without one, make an environment of it, or "
    "have the node's administrator name it in LOCAL_IMAGES"
)


class RegistryImages:
    """`local_images` is LOCAL_IMAGES, `timeout_seconds` DOCKER_IMAGE_SYNC_TIMEOUT, past which the caller ends
    a pull. Not locked: one call at a time for each image.
    """

    def __init__(
        self,
        api: DockerApi,
        pulled: PulledImages,
        logins: RegistryLogins,
        timeout_seconds: float,
        local_images: Sequence[str] = (),
    ) -> None:
        self._api = api
        self._pulled = pulled
        self._logins = logins
        self._timeout_seconds = timeout_seconds
        self._local = frozenset(parse_image_reference(text).whole for text in local_images)

    async def sync(self, text: str, pull: PullPolicy, report: Progress) -> ReadyImage:
        """Have the image here; InvalidInput for a name that is none, EngineFault or NotFound.

        RegistryUnavailable: it was busy or unreachable for as long as there was time.
        """
        reference = parse_image_reference(text)
        is_local = reference.whole in self._local
        if is_local and pull is PullPolicy.ALWAYS:
            raise EngineFault(
                f"image {text} is used on this node as it is here (LOCAL_IMAGES) and never pulled; leave "
                "--pull always out, or choose another node"
            )
        facts = await inspect_image(self._api, reference.whole)
        if facts is not None and pull is not PullPolicy.ALWAYS and await self._may_serve(facts, reference):
            return _ready(facts, reference)
        if pull is PullPolicy.NEVER:
            raise NotFound(
                f"image {text} was not pulled for tasks of this node before, and --pull never asks for none "
                "to be pulled now"
            )
        report(f"pulling {text}")
        before = "" if pull is PullPolicy.ALWAYS else "was not pulled for tasks of this node before and "
        await self._pull(f"image {text} {before}cannot be pulled", text, reference, report)
        facts = await inspect_image(self._api, reference.whole)
        if facts is None:
            raise NodeFault(f"the engine pulled image {text} and does not have it")
        try:
            await self._pulled.note(reference.whole, facts.id)
        except OSError as error:
            raise storage_fault("the record of pulled images", self._pulled.path, error) from error
        return _ready(facts, reference)

    async def _may_serve(self, facts: ImageFacts, reference: ImageReference) -> bool:
        if reference.whole in self._local:
            return True
        return facts.id == await self._pulled.id_of(reference.whole)

    async def _pull(self, failure: str, text: str, reference: ImageReference, report: Progress) -> None:
        """`failure`: how the sentence begins that says why it did not work."""
        try:
            await with_patience(
                lambda: pull_with(self._api, reference.whole, self._logins.of(reference.registry), report),
                f"pulling {text}",
                self._timeout_seconds,
                report,
            )
        except (EngineFault, NotFound) as error:
            if says_full(str(error)):
                raise NoDiskSpace(no_disk_space_sentence(f"image {text}", error)) from error
            if says_broken(str(error)):
                raise NodeFault(f"the engine cannot take in image {text}: {error}") from error
            kind = RegistryUnavailable if isinstance(error, RegistryBusy) else type(error)
            advice = "" if isinstance(error, ExplainedPullFault) else _ADVICE
            # Whether an image of that name is here is not told: it is none of the submitter's business.
            raise kind(f"{failure}: {error}{advice}") from error


def _ready(facts: ImageFacts, reference: ImageReference) -> ReadyImage:
    """With the digest under which its own registry has it; an engine may know one of each registry."""
    for known in facts.digests:
        found = parse_image_reference(known)
        if (found.registry, found.path) == (reference.registry, reference.path) and found.digest:
            return ReadyImage(facts.id, found.digest)
    return ReadyImage(facts.id, facts.id)
