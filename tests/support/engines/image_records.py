"""What tests look up about images on the engine."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, list_environment_images
from kohakuriver.runner.images.environment_images import EnvironmentImages
from kohakuriver.runner.images.pulled_images import PulledImages
from kohakuriver.runner.images.registry_images import RegistryImages
from kohakuriver.runner.images.registry_logins import AskHost, RegistryLogins
from kohakuriver.wire.registry_credentials import RegistryCredential

MakeTarball = Callable[..., Awaitable[tuple[Path, str]]]
"""The fixture `make_tarball`."""


def ignore(_sentence: str) -> None:
    """For callers that do not follow progress."""


async def id_of(api: DockerApi, reference: str) -> str | None:
    facts = await inspect_image(api, reference)
    return facts.id if facts else None


async def tags_of(api: DockerApi, environment: str) -> list[str]:
    """Tags of an environment on the engine, in order."""
    return [image.tag for image in await list_environment_images(api) if image.name == environment]


async def _none_kept(_registry: str) -> RegistryCredential:
    return RegistryCredential()


def node_images(
    api: DockerApi,
    folder: Path,
    seconds: float = 60,
    local_images: tuple[str, ...] = (),
    ask_host: AskHost = _none_kept,
) -> EnvironmentImages:
    """The images of a node that finds tarballs in the folder, and keeps its record there too."""
    registry_images = RegistryImages(
        api, PulledImages(folder / "pulled_images.json"), RegistryLogins(ask_host), seconds, local_images
    )
    return EnvironmentImages(api, folder, seconds, registry_images)
