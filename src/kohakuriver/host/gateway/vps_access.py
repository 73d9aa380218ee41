"""Which VPSs somebody may enter through the gateway, and by which names.

A name is looked for among the VPSs that the user may use and among no others, so the answer for one
that is somebody else's is the answer for one that does not exist.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

from kohakuriver.host.auth import Actor, AuthService, Rights
from kohakuriver.host.auth.service import ANONYMOUS
from kohakuriver.host.control import ClusterControl
from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.models.enums import SshKeyMode, TaskState
from kohakuriver.models.errors import Conflict, Denied, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import vps_container_name
from kohakuriver.models.numbers import whole_number
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE
from kohakuriver.wire.channel import Channel

SSH_PORT = 22
_DOMAIN = ".kohakuriver"
_ID_PREFIX = "vps-"
_FEWEST_DIGITS = 4
_ASKING_FOR_A_KEY = (SshKeyMode.UPLOAD, SshKeyMode.GENERATE)


@dataclass(frozen=True, slots=True)
class Login:
    """Who has logged in. `actor` None: a holder of a public key, which opens only `vps_ids`."""

    actor: Actor | None
    vps_ids: frozenset[TaskId] = frozenset()

    @property
    def name(self) -> str:
        """For logs; a key has no name, it is known by the VPS that it opens."""
        return "holder of a key" if self.actor is None else self.actor.name


@dataclass(frozen=True, slots=True)
class VpsAccess:
    """What the gateway may ask of the rest of the host. All but `open_forward` answer from memory.

    `everybody`: who each login is where nobody is asked for a credential, else None. `actor_of`: of a
    token. `vps_of_key`: of a public key (`type base64`). `active`: all VPSs that are not over, and
    `live` one of them. `may_use`: whether the actor may work in that VPS. `open_forward`: the
    stream to a port of a VPS, as `streams.forwarding` has it. `rights`: where what is open is held.
    """

    everybody: Actor | None
    actor_of: Callable[[str], Actor | None]
    vps_of_key: Callable[[str], Collection[TaskId]]
    active: Callable[[], Iterable[Task]]
    live: Callable[[TaskId], Task | None]
    may_use: Callable[[Actor, Task], bool]
    open_forward: Callable[[Task, int], Awaitable[Channel]]
    rights: Rights

    def login_of_token(self, token: str) -> Login | None:
        actor = self.actor_of(token)
        return None if actor is None else Login(actor)

    def login_of_key(self, public_key: str) -> Login | None:
        vps_ids = frozenset(self.vps_of_key(public_key))
        return Login(None, vps_ids) if vps_ids else None

    def admit(self, login: Login, host: str, port: int) -> Task:
        """Find the VPS that a connection is asked for; raises Denied, NotFound or Conflict."""
        if port != SSH_PORT:
            raise Denied(
                f"the gateway leads only to port {SSH_PORT} of a VPS; "
                "`kohakuriver ssh ID -L PORT:localhost:PORT` reaches another port of it"
            )
        usable = [task for task in self.active() if self._may_enter(login, task)]
        task = _named(host, usable)
        if task.state is TaskState.PAUSED:
            raise Conflict(f"VPS {task.id} is paused; resume it first")
        if task.state is not TaskState.RUNNING:
            raise Conflict(f"VPS {task.id} is {task.state.value}; only one that runs can be entered")
        if task.spec.vps is None or task.spec.vps.ssh_key_mode is SshKeyMode.DISABLED:
            raise Conflict(f"VPS {task.id} was made without SSH; `kohakuriver connect` opens a shell in it")
        return task

    def admit_without_login(self, text: str) -> Task:
        """Find a VPS that asks for a key itself, by its whole id; Denied for anything else."""
        number = whole_number(text, 19)
        task = None if number is None else self.live(TaskId(number))
        mode = task.spec.vps.ssh_key_mode if task and task.spec.vps else SshKeyMode.DISABLED
        if task is None or task.state is not TaskState.RUNNING or mode not in _ASKING_FOR_A_KEY:
            raise Denied("no VPS of that id runs whose SSH asks for a key")
        return task

    def still_admits(self, login: Login, task_id: TaskId) -> bool:
        """Tell whether an open connection to the VPS may go on."""
        task = self.live(task_id)
        return task is not None and task.state in ALIVE and self._may_enter(login, task)

    def _may_enter(self, login: Login, task: Task) -> bool:
        if not task.is_vps:
            return False
        if login.actor is None:
            return task.id in login.vps_ids
        return self.may_use(login.actor, task)


def vps_access_of(control: ClusterControl, auth: AuthService, runners: Runners) -> VpsAccess:
    """What there is to enter, made of the host's other parts."""

    def actor_of(token: str) -> Actor | None:
        actor = auth.actor_of(token)
        auth.uses.note(actor.token_id if actor else "")
        return actor

    async def open_forward(task: Task, port: int) -> Channel:
        if task.assigned_node is None:
            raise Unavailable(f"VPS {task.id} is on no node")
        path = f"/ws/forward/{vps_container_name(task.id)}/{port}"
        return await runners.open_stream(task.assigned_node, path)

    return VpsAccess(
        everybody=None if auth.enabled else ANONYMOUS,
        actor_of=actor_of,
        vps_of_key=control.vps.of_key,
        active=control.vps.active,
        live=control.tasks.live,
        may_use=auth.may_use,
        rights=auth.rights,
        open_forward=open_forward,
    )


def _named(host: str, tasks: list[Task]) -> Task:
    """SSH clients write host names in small letters, so that is how names are compared."""
    name = host.lower().removesuffix(_DOMAIN)
    digits = name.removeprefix(_ID_PREFIX)
    found = [task for task in tasks if _is_meant(digits, task.id)]
    if len(found) > 1:
        raise Conflict("several of your VPSs have ids that end so; give more digits")
    if not found:
        named = [task for task in tasks if task.spec.name is not None and task.spec.name.lower() == name]
        # Names may be given again: the newest that runs is meant, else the newest.
        found = sorted(named, key=lambda task: (task.state in ALIVE, task.id))
    if not found:
        raise NotFound("no VPS of that name or id runs that you may use")
    return found[-1]


def _is_meant(digits: str, task_id: TaskId) -> bool:
    return digits.isdigit() and len(digits) >= _FEWEST_DIGITS and str(task_id).endswith(digits)
