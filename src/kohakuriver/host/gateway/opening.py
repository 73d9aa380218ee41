"""The gateway's doors, made of the host's other parts."""

from kohakuriver.host.auth import Action, Actor, Assignments, AuthService, may
from kohakuriver.host.auth.service import ANONYMOUS
from kohakuriver.host.control import ClusterControl
from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.host.gateway.vps_access import VpsAccess
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.names import vps_container_name
from kohakuriver.models.tasks import Task
from kohakuriver.wire.channel import Channel


def vps_access_of(
    control: ClusterControl, auth: AuthService, assignments: Assignments, runners: Runners
) -> VpsAccess:
    def may_use(actor: Actor, task: Task) -> bool:
        assigned = assignments.has(task.id, actor.name)
        return may(actor, Action.USE_WORKLOAD, task.owner, assigned=assigned)

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
        may_use=may_use,
        open_forward=open_forward,
    )
