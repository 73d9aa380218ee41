"""Makes, finds, checks and removes single sandboxes; who gets which is `sandboxes.pool`'s business.

What a sandbox's namespace looked like when it was made is kept in `<state dir>/sandboxes/<id>.json`, so that
a later runner can still tell whether it is clean.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.times import engine_time
from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.names import LABEL_TUNNEL, SANDBOX_NAME
from kohakuriver.runner.engines.docker.kernel.container_shims import shim_of
from kohakuriver.runner.engines.docker.kernel.forgotten import end_forgotten
from kohakuriver.runner.engines.docker.kernel.netns_state import (
    Endpoint,
    NetnsState,
    ProcessMark,
    has_ipv6_loopback,
    is_alive,
    mark_process,
    port_name,
    read_netns,
    traces,
)
from kohakuriver.runner.engines.docker.labels import LABEL_FORM, LABEL_MAKER, Owner, sandbox_labels
from kohakuriver.runner.engines.docker.sandboxes.body import (
    SandboxRequest,
    form_of,
    sandbox_body,
    sandbox_hostname,
    vps_changes,
)
from kohakuriver.runner.engines.docker.sandboxes.ground import SandboxGround
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import TunnelFolders
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.network.pin_rules import checked_port
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxIdentity, SandboxTunnels

_NAME = SANDBOX_NAME
_NO_NETWORK = "127.0.0.1"
_NAME_TRIES = 10_000
# A resolver's or a closing socket may need a moment to go; what stays longer counts as a trace.
_SECOND_LOOKS = 3
_SECOND_LOOK_SECONDS = 0.03
_REMOVE_SECONDS = 30.0
_SHIM_SECONDS = 1.0
# Of its own: others may wait for storage that hangs, and no task would get its network then.
_THREADS = 2
_T = TypeVar("_T")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`mark` None: its processes cannot be seen from here, so it is never used twice. `form`: see `body`.

    Without a network (its process ended) its address is this machine's own, which nobody is to be sent to.
    """

    id: str
    name: str
    hostname: str
    address: str
    mark: ProcessMark | None
    form: str = ""

    @property
    def has_network(self) -> bool:
        return self.address != _NO_NETWORK

    @property
    def has_ipv6_loopback(self) -> bool:
        """Whether ::1 is there for whoever runs in it; False where that cannot be seen."""
        return self.mark is not None and has_ipv6_loopback(self.mark.pid)


class SandboxContainers:
    def __init__(
        self,
        api: DockerApi,
        owner: Owner,
        ground: SandboxGround,
        settings: DockerEngineSettings,
        tunnels: SandboxTunnels,
    ) -> None:
        self._api = api
        self._owner = owner
        self._ground = ground
        self._tunnels = tunnels
        self._folders = TunnelFolders(settings.state_dir, settings.tunnels_to)
        self._folder_keys: dict[str, str] = {}  # by id, of one that came to nothing by name
        self._records = settings.state_dir / "sandboxes"
        self._maker = uuid.uuid4().hex
        self.next_number = 1  # each is used once by this object
        self._image = self._form = ""  # known once the ground is prepared
        self._has_client = settings.tunnel_client is not None
        self._endpoint = _endpoint_of(settings)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sandbox")

    def close(self) -> None:
        """Let go of the threads; nothing is made or checked afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def make(self, doom: Callable[[str], object], request: SandboxRequest | None = None) -> Sandbox:
        """Start a new one; raises EngineFault or Unavailable, or OSError where its record cannot be kept.

        `doom` hears of every container that may be there although no sandbox came of it. `request`: it is
        for a VPS; EngineFault where its address cannot be had.
        """
        try:
            return await self._make(doom, request)
        except NotFound as error:
            # Somebody cleared the engine of what nothing used just then, image or network.
            _log.warning("sandbox_ground_missing", error=str(error))
        await self.prepare_ground()
        return await self._make(doom, request)

    async def prepare_ground(self, clear_idle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Have image and network of sandboxes there; see `SandboxGround.prepare`."""
        self._image = await self._ground.prepare(clear_idle)
        self._form = form_of(self._body("", {}, ""))

    async def remove_old_images(self) -> None:
        """Once the ground is prepared, and what an earlier runner left idle is gone."""
        await self._ground.remove_old_images(self._image)

    async def _make(self, doom: Callable[[str], object], request: SandboxRequest | None) -> Sandbox:
        key = uuid.uuid4().hex
        await self._in_thread(self._folders.make, key)
        try:
            container_id, name = await self._create(key, doom, request)
        except KohakuRiverError as error:
            if not isinstance(error, Unavailable):
                await self._in_thread(self._folders.remove, key)
            raise
        self._folder_keys[container_id] = key
        reach(CrashPoint.RUNNER_SANDBOX_CREATED)
        try:
            await self._in_thread(self._folders.write, key, name)
            sandbox = await self._start(container_id, name)
            reach(CrashPoint.RUNNER_SANDBOX_STARTED)
            if sandbox.mark is not None:
                await self._in_thread(self._note, sandbox.id, sandbox.mark.pid)
        except BaseException:
            doom(container_id)
            raise
        return sandbox

    async def _start(self, container_id: str, name: str) -> Sandbox:
        with self._tunnels.arrivals.starting(name):
            await self._api.json("POST", f"containers/{container_id}/start")
            return await self.read(container_id)

    async def read(self, container_id: str) -> Sandbox:
        """Look at one, have its port pinned, let its client in: whoever hands it out has read it before."""
        facts = await self._api.json("GET", f"containers/{container_id}/json")
        network: dict[str, str] = next(iter(facts["NetworkSettings"]["Networks"].values()), {})
        address = network.get("IPAddress", "")
        try:
            mark = mark_process(facts["State"]["Pid"]) if facts["State"]["Pid"] else None
        except (OSError, ValueError, IndexError):
            mark = None
        if mark is not None and address:
            await self._pin(facts["Id"], mark.pid, network["MacAddress"], address)
        name, labels = facts["Name"].lstrip("/"), facts["Config"]["Labels"]
        await self._let_in(facts["Id"], name, address, labels.get(LABEL_TUNNEL))
        hostname, form = facts["Config"]["Hostname"], labels.get(LABEL_FORM, "")
        return Sandbox(facts["Id"], name, hostname, address or _NO_NETWORK, mark, form)

    async def _let_in(self, container_id: str, name: str, address: str, key: str | None) -> None:
        """Tell its client what holds now, and know it by its secret; without a folder it has none."""
        if key is None:
            return
        self._folder_keys[container_id] = key
        try:
            secret = await self._in_thread(self._folders.write, key, name)
        except OSError as error:
            _log.warning("tunnel_folder_not_written", sandbox=name, reason=error.strerror)
            secret = None
        if secret is None or not address:
            self._tunnels.forget(container_id)
        else:
            self._tunnels.learn(SandboxIdentity(container_id, name, address, secret))

    async def _pin(self, container_id: str, pid: int, mac: str, address: str) -> None:
        try:
            port = checked_port(port_name(pid), mac, address)
        except (OSError, ValueError) as error:
            _log.warning("port_not_pinned", sandbox=container_id, reason=str(error))
        else:
            await self._ground.bridge_filter.pin(container_id, port)

    async def ended_at(self, container_id: str) -> datetime | None:
        """When its process ended, None while it runs; raises NotFound if it is gone.

        Nothing that a workload does ends it: only the engine's or the node's restart, or somebody's hand.
        """
        state = (await self._api.json("GET", f"containers/{container_id}/json"))["State"]
        return None if state["Running"] else engine_time(state["FinishedAt"])

    async def revive(self, sandbox: Sandbox) -> None:
        """Start one again whose process ended (the daemon was restarted); its record no longer fits.

        One that was made for an address which somebody else has by now gets another.
        """
        self._record_path(sandbox.id).unlink(missing_ok=True)
        self._tunnels.forget(sandbox.id)  # its port is another afterwards, and its address may be
        try:
            await self._start(sandbox.id, sandbox.name)
        except EngineFault as error:
            if not is_about_address(error):
                raise
            await self._connect_anew(sandbox.id)
            await self._start(sandbox.id, sandbox.name)

    async def _connect_anew(self, container_id: str) -> None:
        network = self._ground.network_name
        body = {"Container": container_id, "Force": True}
        await self._api.json("POST", f"networks/{network}/disconnect", json=body)
        await self._api.json("POST", f"networks/{network}/connect", json={"Container": container_id})

    async def destroy(self, container_id: str) -> None:
        """Remove it, by id, or by its name if this object made it; free if it is gone.

        Raises Unavailable if the engine takes too long.
        """
        self._tunnels.forget(container_id)
        await self._destroy(container_id)
        key = self._folder_keys.pop(container_id, None)
        if key is not None:
            await self._in_thread(self._folders.remove, key)

    async def _destroy(self, container_id: str) -> None:
        try:
            async with asyncio.timeout(_REMOVE_SECONDS):
                if container_id.startswith(_NAME) and not await self._was_made_here(container_id):
                    return
                self._record_path(container_id).unlink(missing_ok=True)
                await self._api.json("DELETE", f"containers/{container_id}", params={"force": "1", "v": "1"})
        except Conflict:
            return  # its removal is under way
        except NotFound:
            _log.debug("sandbox_gone", sandbox=container_id)
        except TimeoutError as error:
            raise Unavailable(f"the engine did not remove a sandbox in {_REMOVE_SECONDS:.0f} s") from error
        if not container_id.startswith(_NAME):
            await self._end_what_is_left(container_id)

    async def _end_what_is_left(self, container_id: str) -> None:
        """Of one that the engine has removed; its shim may need a moment to go by itself."""
        if await self._in_thread(shim_of, container_id) is not None:
            await asyncio.sleep(_SHIM_SECONDS)
            await self._in_thread(end_forgotten, container_id)

    async def _was_made_here(self, name: str) -> bool:
        """A name that this object chose may be that of an earlier runner's sandbox, which serves somebody."""
        facts = await self._api.json("GET", f"containers/{name}/json")
        labels = facts["Config"]["Labels"]
        return self._owner.owns(labels) and labels.get(LABEL_MAKER) == self._maker

    async def remove_records_but(self, kept: Mapping[str, str]) -> None:
        """Remove the records and folders of sandboxes that are gone; `kept`: ids, with their tunnel keys."""
        await self._in_thread(self._remove_records_but, kept.keys())
        await self._in_thread(self._folders.remove_all_but, set(kept.values()))

    def _remove_records_but(self, kept: Set[str]) -> None:
        if self._records.is_dir():
            for path in self._records.iterdir():
                if path.stem not in kept:
                    path.unlink(missing_ok=True)

    def is_ready(self, sandbox: Sandbox) -> bool:
        return sandbox.mark is None or is_alive(sandbox.mark)

    async def traces_in(self, sandbox: Sandbox) -> list[str]:
        """Say what a workload left in it; also what makes that impossible to tell."""
        if not await self._tunnels.are_streams_closed(sandbox.id):
            return ["streams of its tunnel, for all that is known"]
        if sandbox.mark is None:
            return ["its processes cannot be seen from here"]
        if sandbox.form != self._form:
            return ["its image or settings are those of before"]
        found: list[str] = []
        for look in range(_SECOND_LOOKS):
            if look:
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
            found = await self._in_thread(self._look, sandbox.id, sandbox.mark)
            if not found:
                break
        return found

    def _look(self, container_id: str, mark: ProcessMark) -> list[str]:
        try:
            made: NetnsState = json.loads(self._record_path(container_id).read_text())
            return traces(mark, made, self._ground.gateway, self._endpoint)
        except (OSError, ValueError, IndexError) as error:
            return [f"it cannot be checked ({error})"]

    async def _create(
        self, key: str, doom: Callable[[str], object], request: SandboxRequest | None
    ) -> tuple[str, str]:
        """Return its id and name."""
        for _ in range(_NAME_TRIES):
            number, self.next_number = self.next_number, self.next_number + 1
            name = f"{_NAME}{number}"
            body = self._body_of(number, key, request)
            try:
                return await self._api.create_container(name, body), name
            except Conflict:
                continue  # another runner on the same engine has this number
            except (Unavailable, asyncio.CancelledError):
                self._folder_keys[name] = key
                doom(name)  # the engine may have made it all the same
                raise
        raise EngineFault(f"no free name {_NAME}<n> for a sandbox; remove what is left of old ones")

    def _body_of(self, number: int, key: str, request: SandboxRequest | None) -> dict[str, Any]:
        labels = sandbox_labels(self._owner, self._maker, for_vps=request is not None)
        labels |= {LABEL_FORM: self._form, **self._folders.labels(key)}
        body = self._body(sandbox_hostname(self._owner.node, number), labels, key)
        return body if request is None else body | vps_changes(self._ground.network_name, request)

    def _body(self, hostname: str, labels: dict[str, str], key: str) -> dict[str, Any]:
        mounts, network = self._folders.mounts(key), self._ground.network_name
        return sandbox_body(hostname, labels, self._image, network, mounts, client=self._has_client)

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _note(self, container_id: str, pid: int) -> None:
        """Keep what the namespace looks like now."""
        state = read_netns(pid, self._endpoint)
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._record_path(container_id).write_text(json.dumps(state))

    def _record_path(self, container_id: str) -> Path:
        return self._records / f"{container_id}.json"


def _endpoint_of(settings: DockerEngineSettings) -> Endpoint | None:
    """Where clients of sandboxes are connected to; None where there are none."""
    place = settings.tunnels_to
    return None if place is None or settings.tunnel_client is None else Endpoint.of(place.address, place.port)


def is_about_address(error: EngineFault) -> bool:
    """The engine cannot give the address that it was asked for: taken, or of no network that there is."""
    return "address" in str(error).lower()
