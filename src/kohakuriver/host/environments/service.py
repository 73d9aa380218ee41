"""Environment containers on the host: where a user prepares what tasks later run in.

A container is ours when it carries our labels and the name that belongs to them; no other is ever changed.
Labels of a container are copied into images made of it, so exports blank them: a container made of such an
image elsewhere must not look like ours.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.exec_stream import BEST_SHELL, ExecNotStarted, ExecOptions, ExecStream
from kohakuriver.dockerapi.images import Progress, inspect_image, remove_image
from kohakuriver.dockerapi.pulling import with_patience
from kohakuriver.dockerapi.registry_auth import Candidate, pull_with
from kohakuriver.dockerapi.tarballs import Tarball
from kohakuriver.dockerapi.whole_disk import commit_whole
from kohakuriver.files.service import FileService
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_body import (
    KEEPALIVE_COMMANDS,
    environment_body,
    is_missing_program,
)
from kohakuriver.host.environments.environment_settings import (
    EnvironmentContainer,
    EnvironmentSettings,
    EnvironmentTarballs,
)
from kohakuriver.host.environments.registry_logins import KeptCredentials, registry_logins
from kohakuriver.host.environments.tarball_store import TarballStore
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NotFound,
)
from kohakuriver.models.names import (
    LABEL_ENVIRONMENT,
    LABEL_MANAGED,
    LABEL_SNAPSHOT,
    check_environment_name,
    environment_container_name,
    is_own_container_name,
)
from kohakuriver.models.spec.image_references import parse_image_reference


class BusyNames:
    """Which environment is being worked on, and how."""

    def __init__(self) -> None:
        self._doing: dict[str, str] = {}

    @contextmanager
    def claim(self, name: str, doing: str) -> Iterator[None]:
        """Hold the name; raises Conflict while somebody else does. `doing` completes "is being …"."""
        if name in self._doing:
            raise Conflict(f"environment {name} is being {self._doing[name]}; wait until that is done")
        self._doing[name] = doing
        try:
            yield
        finally:
            del self._doing[name]


_STOP_SECONDS = 10
PULL_SECONDS = 120.0
"""For how long a registry that is busy or unreachable is asked again."""
_EXPORTED_CONFIG: dict[str, Any] = {
    "Entrypoint": [],
    "Cmd": ["sh"],
    "Labels": {LABEL_MANAGED: "", LABEL_ENVIRONMENT: ""},
}
"""An image must not keep itself alive as the container does, nor make containers that look like ours."""
_log = structlog.get_logger(__name__)


def _unheard(_sentence: str) -> None:
    """For callers that do not follow progress."""


class EnvironmentService:
    """What the host offers around environments. Every method may raise Unavailable when Docker is down."""

    def __init__(
        self,
        settings: EnvironmentSettings,
        engine: EngineLink,
        credentials: KeptCredentials | None = None,
    ) -> None:
        """`credentials`: the cluster's, for registries."""
        self._settings = settings
        self._credentials = credentials
        self._engine = engine
        self._busy = BusyNames()
        self._tarballs = TarballStore(settings.tar_dir)
        self.files = FileService(self._first_pid)
        """Files in running environment containers, by their names."""

    def close(self) -> None:
        self.files.close()

    async def list_containers(self) -> list[EnvironmentContainer]:
        """Environment containers of this engine, by name."""
        api = await self._engine.get()
        filters = json.dumps({"label": [f"{LABEL_MANAGED}=true", LABEL_ENVIRONMENT]})
        rows = await api.json("GET", "containers/json", params={"all": "true", "filters": filters})
        found = [container for row in rows if (container := _container_of(row)) is not None]
        return sorted(found, key=lambda container: container.name)

    async def create_container(
        self,
        image: str,
        name: str,
        on_progress: Progress = _unheard,
        pull: PullPolicy = PullPolicy.MISSING,
    ) -> None:
        """Make and start a container of an image that is here or can be pulled."""
        check_environment_name(name)
        reference = parse_image_reference(image).whole
        api = await self._engine.get()
        with self._busy.claim(name, "created"):
            await _refuse_taken_name(api, name)
            facts = await inspect_image(api, reference)
            if pull is PullPolicy.ALWAYS or (facts is None and pull is PullPolicy.MISSING):
                on_progress(f"pulling {image}")
                await self._pull(api, reference, on_progress)
            elif facts is None:
                raise NotFound(
                    f"image {image} is not on the host's machine; leave pull out to have it pulled"
                )
            elif facts.labels.get(LABEL_SNAPSHOT):
                raise Denied(f"image {image} is the disk of somebody's VPS; restore that VPS instead")
            await self._create_and_start(api, name, image)

    async def start_container(self, name: str) -> None:
        """Start it; one that runs already is left as it is."""
        api = await self._engine.get()
        container = await _own_container(api, name)
        await api.json("POST", f"containers/{container['Id']}/start")

    async def stop_container(self, name: str) -> None:
        """Stop it; its file system stays."""
        api = await self._engine.get()
        container = await _own_container(api, name)
        await api.json("POST", f"containers/{container['Id']}/stop", params={"t": str(_STOP_SECONDS)})

    async def delete_container(self, name: str, *, force: bool = False) -> None:
        """Remove a container, with everything in it that was not exported; one that runs only by `force`."""
        api = await self._engine.get()
        with self._busy.claim(name, "deleted"):
            container = await _own_container(api, name)
            if container["State"]["Running"] and not force:
                raise Conflict(f"environment container {name} is running; stop it first")
            how = {"v": "true", "force": "true" if force else "false"}
            await api.json("DELETE", f"containers/{container['Id']}", params=how)
            await _remove_migrated_image(api, container["Image"])

    async def migrate_container(self, name: str) -> None:
        """Make an environment container out of the foreign container NAME, which stays as it is."""
        check_environment_name(name)
        api = await self._engine.get()
        with self._busy.claim(name, "migrated"):
            await _refuse_taken_name(api, name)
            foreign = await _inspect_container(api, name)
            if foreign is None:
                raise NotFound(f"Docker on this machine has no container {name!r} to make an environment of")
            if foreign["Config"]["Labels"].get(LABEL_MANAGED) == "true" or is_own_container_name(name):
                raise Conflict(
                    f"container {name} belongs to KohakuRiver already; there is nothing to migrate"
                )
            labels = {"Labels": {LABEL_MANAGED: "true"}}
            image_id = await commit_whole(api, foreign["Id"], labels, _draft_of(name))
            try:
                await self._create_and_start(api, name, image_id)
            except BaseException:
                await asyncio.shield(remove_image(api, image_id))
                raise

    async def create_tar(self, name: str, on_progress: Progress = _unheard) -> Tarball:
        """Export the container as the environment's new current version, what lies in volumes included.

        It may run; it is frozen while it is read.
        """
        api = await self._engine.get()
        with self._busy.claim(name, "exported"):
            container = await _own_container(api, name)
            version = await self._tarballs.prepare(name)
            on_progress("reading the container's changes")
            image_id = await commit_whole(api, container["Id"], _EXPORTED_CONFIG, _draft_of(name))
            return await self._tarballs.export(api, image_id, name, version, on_progress)

    async def list_tarballs(self) -> list[EnvironmentTarballs]:
        return await self._tarballs.list_environments()

    async def inspect_tarballs(self, name: str) -> EnvironmentTarballs:
        return await self._tarballs.inspect(name)

    async def delete_tarballs(self, name: str) -> EnvironmentTarballs:
        """Delete all versions in shared storage; refused while one is being written."""
        check_environment_name(name)
        with self._busy.claim(name, "deleted"):
            return await self._tarballs.delete(name)

    async def export_image(self, image_id: str, name: str, on_progress: Progress = _unheard) -> Tarball:
        """Make an image of this engine the current version of an environment, without a container."""
        api = await self._engine.get()
        with self._busy.claim(check_environment_name(name), "exported"):
            version = await self._tarballs.prepare(name)
            return await self._tarballs.export(api, image_id, name, version, on_progress)

    async def check_export(self, name: str) -> None:
        """Raise Unavailable where no tarball could be written, before long work is done for one."""
        await self._tarballs.prepare(check_environment_name(name))

    async def remove_stale_partials(self) -> list[str]:
        """Call once at start; see TarballStore."""
        return await self._tarballs.remove_stale_partials()

    def logins(self, image: str) -> tuple[Candidate, ...]:
        """The credentials to try where an image is pulled."""
        return registry_logins(self._credentials, parse_image_reference(image).registry)

    async def open_terminal(self, name: str, rows: int, cols: int) -> ExecStream:
        """Open a shell in a running environment container; the caller closes it."""
        api = await self._engine.get()
        container = await _own_container(api, name)
        if not container["State"]["Running"] or container["State"]["Paused"]:
            raise Conflict(f"environment container {name} is not running; start it first")
        try:
            options = ExecOptions(BEST_SHELL, rows=rows, cols=cols)
            return await ExecStream.open(api, container["Id"], options, container["State"]["Pid"])
        except ExecNotStarted as error:
            raise EngineFault(f"environment container {name} holds no shell that runs: {error}") from error

    async def _pull(self, api: DockerApi, image: str, on_progress: Progress) -> None:
        try:
            await with_patience(
                lambda: pull_with(api, image, self.logins(image), on_progress),
                f"pulling {image}",
                PULL_SECONDS,
                on_progress,
            )
        except (EngineFault, NotFound) as error:
            raise type(error)(f"image {image} cannot be pulled onto this machine: {error}") from error

    async def _first_pid(self, name: str) -> int:
        container = await _own_container(await self._engine.get(), name)
        if not container["State"]["Running"]:
            raise Conflict(f"environment container {name} is not running; start it first")
        return int(container["State"]["Pid"])

    async def _create_and_start(self, api: DockerApi, name: str, image: str) -> None:
        """Start a container with the first keep-alive command that its image can run."""
        machine = await api.json("GET", "info")
        has_shared = await asyncio.to_thread(self._settings.shared_data_dir.is_dir)
        config = environment_body(self._settings, name, image, machine, has_shared)
        for command in KEEPALIVE_COMMANDS:
            entrypoint = {"Entrypoint": [command[0]], "Cmd": list(command[1:])}
            if await _started(api, name, config | entrypoint):
                _log.info("environment_container_created", environment=name, image=image)
                return
        raise InvalidInput(
            f"image {image} holds no shell and no `sleep` or `tail`, so nothing can be prepared in it; "
            "tasks can use it as a registry image",
            field="image_name",
        )


def _draft_of(name: str) -> str:
    """Name of the container that stands for an image while it is made."""
    return f"kohakuriver-draft-{name}"


async def _started(api: DockerApi, name: str, config: dict[str, Any]) -> bool:
    """Create and start the container; False if the image lacks the program. What did not start is removed."""
    container_id = await api.create_container(environment_container_name(name), config)
    try:
        await api.json("POST", f"containers/{container_id}/start")
    except BaseException as error:
        remove = api.json("DELETE", f"containers/{container_id}", params={"force": "true", "v": "true"})
        await asyncio.shield(remove)
        if isinstance(error, KohakuRiverError) and is_missing_program(str(error)):
            return False
        raise
    return True


async def _remove_migrated_image(api: DockerApi, image_id: str) -> None:
    """Remove the image that a migration made for a container that is gone now; no other."""
    facts = await inspect_image(api, image_id)
    if facts is not None and not facts.tags and facts.labels.get(LABEL_MANAGED) == "true":
        with contextlib.suppress(Conflict):  # somebody made another container of it
            await remove_image(api, image_id)


async def _inspect_container(api: DockerApi, container: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = await api.json("GET", f"containers/{container}/json")
    except NotFound:
        return None
    found["Config"]["Labels"] = found["Config"].get("Labels") or {}
    # Docker also takes the beginning of an id for a name.
    return found if found["Name"] == f"/{container}" else None


async def _own_container(api: DockerApi, name: str) -> dict[str, Any]:
    check_environment_name(name)
    found = await _inspect_container(api, environment_container_name(name))
    if found is None:
        raise NotFound(
            f"there is no environment container {name!r}; `kohakuriver docker container list` shows all"
        )
    labels = found["Config"]["Labels"]
    if labels.get(LABEL_MANAGED) != "true" or labels.get(LABEL_ENVIRONMENT) != name:
        container = environment_container_name(name)
        raise Conflict(
            f"the container {container} was not made by KohakuRiver and is left alone; give it another name "
            f"(`docker rename {container} {name}`) and migrate it"
        )
    return found


async def _refuse_taken_name(api: DockerApi, name: str) -> None:
    if await _inspect_container(api, environment_container_name(name)) is None:
        return
    await _own_container(api, name)
    raise Conflict(f"there is an environment container {name} already; delete it first, or use another name")


def _container_of(row: dict[str, Any]) -> EnvironmentContainer | None:
    """Read a row of the engine's list; None unless name and label belong together."""
    name = row["Labels"].get(LABEL_ENVIRONMENT, "")
    container = environment_container_name(name)
    if f"/{container}" not in row["Names"]:
        return None
    created = datetime.fromtimestamp(row["Created"], UTC)
    return EnvironmentContainer(row["Id"], name, container, row["Image"], row["State"], created)
