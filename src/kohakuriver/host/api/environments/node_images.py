"""What is to happen with an environment's images on the nodes, told to all of them at once."""

import asyncio
from urllib.parse import quote

import structlog

from kohakuriver.host.api.permissions import Call
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import KohakuRiverError

_SECONDS = 30.0
log = structlog.get_logger()


async def remove_from_nodes(call: Call, name: str) -> str:
    """Have the nodes take away an environment that was deleted; returns what came of it, for people.

    A node that is not reached keeps the image and uses it no more: it looks for the tarball first.
    """
    nodes = call.control.nodes.snapshots()
    online = [node.row.hostname for node in nodes if node.status is NodeStatus.ONLINE]
    answers = await asyncio.gather(*(_remove(call, node, name) for node in online))
    reached = sum(answers)
    unreachable = sorted(
        {node.row.hostname for node in nodes}.difference(
            node for node, done in zip(online, answers, strict=True) if done
        )
    )
    left = f"; not reached: {', '.join(unreachable)}, where it stays unused" if unreachable else ""
    return f"its image is removed from {reached} of {len(nodes)} nodes{left}"


async def _remove(call: Call, node: str, name: str) -> bool:
    target = f"/api/docker/images/{quote(name, safe='')}"
    try:
        await call.parts.runners.call(node, "DELETE", target, seconds=_SECONDS)
    except KohakuRiverError as error:
        log.warning("environment_not_removed", node=node, environment=name, reason=str(error))
        return False
    return True
