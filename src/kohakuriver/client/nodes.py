"""Calls about nodes and how they join."""

from urllib.parse import quote

from kohakuriver.client.connection.transport import Transport
from kohakuriver.client.records import (
    ClusterHealth,
    Drained,
    HealthPoint,
    JoinToken,
    Message,
    NodeRecord,
    Reply,
)
from kohakuriver.models.enums import OrphanChoice


class NodesApi:
    """`/api/nodes…` and `/api/health`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def all(self) -> Reply[list[NodeRecord]]:
        return self._transport.fetch(list[NodeRecord], "GET", "/api/nodes")

    def health(self) -> Reply[ClusterHealth]:
        """Return the last 60 seconds of all nodes."""
        return self._transport.fetch(ClusterHealth, "GET", "/api/health")

    def health_of(self, hostname: str) -> Reply[list[HealthPoint]]:
        """Return the latest figures of one node, as a list of one."""
        return self._transport.fetch(list[HealthPoint], "GET", "/api/health", params={"hostname": hostname})

    def approve(self, hostname: str, fingerprint: str | None = None) -> Reply[Message]:
        body = {"fingerprint": fingerprint} if fingerprint else {}
        return self._transport.fetch(Message, "POST", f"{_path_of(hostname)}/approve", body=body)

    def reject(self, hostname: str, fingerprint: str | None = None) -> Reply[Message]:
        body = {"fingerprint": fingerprint} if fingerprint else {}
        return self._transport.fetch(Message, "POST", f"{_path_of(hostname)}/reject", body=body)

    def drain(self, hostname: str, move: bool) -> Reply[Drained]:
        return self._transport.fetch(Drained, "POST", f"{_path_of(hostname)}/drain", body={"move": move})

    def undrain(self, hostname: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"{_path_of(hostname)}/undrain")

    def decide_orphans(self, hostname: str, from_node: str, choice: OrphanChoice) -> Reply[Message]:
        """Have what the node holds under that name go on as its own, or end."""
        body = {"from_node": from_node, "choice": choice.value}
        return self._transport.fetch(Message, "POST", f"{_path_of(hostname)}/leftovers", body=body)

    def remove(self, hostname: str, force: bool) -> Reply[Message]:
        params = {"force": "true"} if force else None
        return self._transport.fetch(Message, "DELETE", _path_of(hostname), params=params)

    def join_tokens(self) -> Reply[list[JoinToken]]:
        return self._transport.fetch(list[JoinToken], "GET", "/api/nodes/join-tokens")

    def create_join_token(self, expires_hours: int) -> Reply[JoinToken]:
        return self._transport.fetch(
            JoinToken, "POST", "/api/nodes/join-tokens", body={"expires_hours": expires_hours}
        )

    def delete_join_token(self, token_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "DELETE", f"/api/nodes/join-tokens/{quote(token_id, safe='')}")


def _path_of(hostname: str) -> str:
    return f"/api/nodes/{quote(hostname, safe='')}"
