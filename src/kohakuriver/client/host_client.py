"""The client of the host's API that the command line and the terminal view are built on."""

from types import TracebackType

from kohakuriver.client.auth import AuthApi
from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.connection.transport import LONG_WORK_SECONDS, Transport, decode_reply
from kohakuriver.client.environments import EnvironmentsApi
from kohakuriver.client.files import FilesApi
from kohakuriver.client.nodes import NodesApi
from kohakuriver.client.records import Leftovers, Readiness, Reply
from kohakuriver.client.streams.logs import LogsApi
from kohakuriver.client.tasks import TasksApi
from kohakuriver.client.vps import SnapshotsApi, VpsApi


class HostClient:
    """One host, spoken to with the token of `access`, if any.

    Calls return `Reply`: a record with the API's own field names, and the answer as it was sent. Refusals
    raise the errors of `models.errors`; no answer at all raises `HostUnreachable`.
    """

    def __init__(self, access: HostAccess) -> None:
        self._transport = Transport(access)
        self.auth = AuthApi(self._transport)
        self.tasks = TasksApi(self._transport)
        self.logs = LogsApi(self._transport, self.tasks)
        self.nodes = NodesApi(self._transport)
        self.environments = EnvironmentsApi(self._transport)
        self.files = FilesApi(self._transport)
        self.vps = VpsApi(self._transport)
        self.snapshots = SnapshotsApi(self._transport)

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def access(self) -> HostAccess:
        return self._transport.access

    def is_alive(self) -> bool:
        """Tell whether a KohakuRiver host answers at `/healthz`; HostUnreachable if nothing answers."""
        status, data = self._transport.exchange("GET", "/healthz", timeout_seconds=10)
        return status == 200 and b'"ok"' in data

    def readiness(self) -> Reply[Readiness]:
        """Return what `/readyz` says; a host that is not ready is an answer too, not an error."""
        _, data = self._transport.exchange("GET", "/readyz", timeout_seconds=10)
        return decode_reply(Readiness, data)

    def leftovers(self) -> Reply[Leftovers]:
        """Return what the host would remove now, by its settings."""
        return self._transport.fetch(Leftovers, "GET", "/api/prune", timeout_seconds=LONG_WORK_SECONDS)

    def prune(self) -> Reply[Leftovers]:
        """Have the host remove that now, and return what it was."""
        return self._transport.fetch(Leftovers, "POST", "/api/prune", timeout_seconds=LONG_WORK_SECONDS)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> "HostClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
