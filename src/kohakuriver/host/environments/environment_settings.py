"""What the host's configuration says about environments, and the records that this room gives out."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kohakuriver.dockerapi.tarballs import Tarball
from kohakuriver.models.spec.mounts import Mount


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """`tar_dir`: CONTAINER_DIR or its default. Limits are fractions of the machine (ENV_CONTAINER_*).

    `privileged` and `working_dir`: TASKS_PRIVILEGED and DEFAULT_WORKING_DIR of the host; a working directory
    in shared storage that is not there is `/`.
    """

    tar_dir: Path
    shared_data_dir: Path
    additional_mounts: tuple[Mount, ...] = ()
    cpu_limit: float = 0.25
    memory_limit: float = 0.25
    privileged: bool = False
    working_dir: str = "/"


@dataclass(frozen=True, slots=True)
class EnvironmentContainer:
    """A container in which an environment is prepared. `status` is the engine's word, e.g. `exited`."""

    id: str
    name: str
    container: str
    image: str
    status: str
    created: datetime


@dataclass(frozen=True, slots=True)
class EnvironmentTarballs:
    """All versions of one environment in shared storage, oldest first; the last one is current."""

    name: str
    versions: tuple[Tarball, ...]

    @property
    def latest(self) -> Tarball:
        return self.versions[-1]
