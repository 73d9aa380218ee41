"""What the engine mounts into each workload by itself: network files, accounts, a home folder, our tools.

They are made before the container and removed after it. A place that a mount of the spec takes stays that
mount's. All functions block.
"""

from pathlib import PurePosixPath

from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.models.spec.task_files import SCRIPT_PLACE
from kohakuriver.runner.engines.contract.faults import storage_fault
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.inside.kept_edits import Edits
from kohakuriver.runner.engines.docker.inside.network_files import NetworkFacts, NetworkFiles
from kohakuriver.runner.engines.docker.inside.own_folder import goes_by_itself
from kohakuriver.runner.engines.docker.inside.user_accounts import GROUP, PASSWD, Accounts, with_user
from kohakuriver.runner.engines.docker.inside.user_homes import UserHomes
from kohakuriver.runner.engines.docker.inside.vps_files import VpsFiles
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings


class OwnMounts:
    def __init__(self, settings: DockerEngineSettings, files: NetworkFiles, vps_files: VpsFiles) -> None:
        self._settings = settings
        self._files = files
        self._vps_files = vps_files
        self._homes = UserHomes(settings.homes_folder)

    def prepare(
        self, spec: WorkloadSpec, sandbox: Sandbox, image: Accounts | None, edits: Edits
    ) -> tuple[Mount, ...]:
        """Make what the spec needs; `image`: accounts of its image.

        `edits`: what the users of a VPS had changed in such files of an earlier run.
        """
        try:
            facts = NetworkFacts.of(sandbox)
            if spec.session is not None:
                mounts = self._files.write_for_vps(spec.task_id, facts, edits)
                return (*mounts, *self._vps_files.prepare(spec.task_id, facts.root))
            mounts = self._files.write(spec.task_id, facts)
            if spec.script is not None:
                script = {SCRIPT_PLACE: spec.script}
                mounts = (*mounts, *self._files.write_more(spec.task_id, script, 0o555))
            if not goes_by_itself(spec):
                return mounts
            of_user = self._of_user(spec, sandbox, image)
            return (*mounts, self._vps_files.tools(), *(m for m in of_user if not _is_taken(m, spec)))
        except OSError as error:
            folder = self._settings.state_dir
            raise storage_fault("the files that a workload is given", folder, error) from error

    def _of_user(self, spec: WorkloadSpec, sandbox: Sandbox, image: Accounts | None) -> tuple[Mount, ...]:
        first_pid = sandbox.mark.pid if sandbox.mark is not None else None
        home = self._homes.make(spec.task_id, spec.user, first_pid)
        if image is None:
            return home
        accounts = with_user(image, spec.user)
        texts = {PASSWD: accounts.passwd, GROUP: accounts.group}
        return (*home, *self._files.write_more(spec.task_id, texts))

    def remove(self, task_id: TaskId) -> None:
        self._files.remove(task_id)
        self._homes.remove(task_id)

    def remove_all_but(self, kept: set[TaskId]) -> None:
        self._files.remove_all_but(kept)
        self._homes.remove_all_but(kept)


def _is_taken(own: Mount, spec: WorkloadSpec) -> bool:
    place = PurePosixPath(own.destination)
    return any(place.is_relative_to(mount.destination) for mount in spec.mounts)
