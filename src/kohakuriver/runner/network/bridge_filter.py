"""Keeps the two filter tables of the workloads' bridge: who may say what on it (`pin_rules`), and where its
workloads may not connect to (`egress_rules`).

They are ensured like the network: what is there is compared with what is wanted, at start and at intervals,
and put right. While no rule of the machine has changed, that costs no process. Each table is named for its
bridge, so several runners of a machine do not meet; tables of bridges that are gone are removed. A kernel or
machine without `nft` is a notice to its users and no fault: workloads run.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from typing import Any

import structlog

from kohakuriver.network import netlink_facts
from kohakuriver.network.nft_command import (
    apply_rules,
    learn_nothing_from_link_local,
    list_table,
    list_tables,
)
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.shown_rules import ShownRules
from kohakuriver.runner.network import egress_rules, pin_rules
from kohakuriver.runner.network.egress_rules import (
    EgressSettings,
    addresses_of,
    addresses_of_node,
    closed_places,
)
from kohakuriver.runner.network.pin_rules import Elements, Port, elements_of

_PREFIX = "kohakuriver-"
_FAMILIES = (pin_rules.FAMILY, egress_rules.FAMILY)
INTERVAL_SECONDS = 15.0
_LOOK_UP_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_Shape = list[dict[str, Any]]

_log = structlog.get_logger(__name__)


class BridgeFilter:
    """Pins that come before `open` are applied by it; `close` leaves everything in force."""

    def __init__(self, egress: EgressSettings, gateway: str) -> None:
        self._egress = egress
        self._gateway = gateway
        self.bridge = ""
        self._ports: dict[str, Port] = {}
        self._applied: Elements | None = None  # None: nothing that is known of
        self._egress_text = ""
        self._host_addresses: list[str] = []
        self._shapes: dict[str, _Shape] = {}
        self._shown = ShownRules()
        self._faults: dict[str, str] = {}
        self._applying = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    def notices(self) -> list[str]:
        """Sentences about what is not closed on this node; empty when all is."""
        return list(self._faults.values())

    async def use_bridge(self, name: str) -> None:
        """Say which bridge it is; that of a network which was made again is another one."""
        if name == self.bridge:
            return
        self.bridge, self._applied, self._egress_text = name, None, ""
        self._shapes.clear()
        if self._keeper is not None:
            await self.check()

    async def open(self) -> None:
        await self.check()
        self._keeper = asyncio.create_task(self._keep(), name="bridge filter")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    async def pin(self, sandbox_id: str, port: Port) -> None:
        """Pin the port of a sandbox; returns when it is in force, or cannot be for now."""
        self._ports[sandbox_id] = port
        if self._keeper is None or "pins" in self._faults:
            return
        async with self._applying:
            # Whoever waited for the lock together is served by the first of them.
            await self._guard("pins", self._apply_pins())

    async def check(self) -> None:
        """Compare what is there with what is wanted, and put right what differs."""
        await self._guard("host", self._look_up_host())  # without the lock, since it may take its time
        async with self._applying:
            if not await self._guard("pins", self._check_pins()):
                self._applied = None
            if not await self._guard("egress", self._check_egress()):
                self._egress_text = ""
            await self._guard("old", self._remove_old())
            self._faults.pop("old", None)  # it stands in the log, and is nothing for users

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.check()
            except Exception:  # noqa: BLE001 - boundary: the node works on with the tables as they are
                _log.exception("walls_check_broke")

    async def _guard(self, part: str, work: Any) -> bool:
        """Do it; say once in the log, and for as long as it lasts in `notices`, why it does not work."""
        try:
            await work
        except (NetworkFault, OSError) as error:
            sentence = _sentence(part, error)
            if self._faults.get(part) != sentence:
                _log.warning("wall_not_up", part=part, reason=sentence)
            self._faults[part] = sentence
            return False
        if self._faults.pop(part, None):
            _log.info("wall_up_again", part=part)
        return True

    @property
    def table(self) -> str:
        return f"{_PREFIX}{self.bridge}"

    def _wanted(self) -> Elements:
        return elements_of(self._ports.values(), self._gateway)

    async def _check_pins(self) -> None:
        self._check_bridge()
        if self._keeper is None:
            await self._take_over()
        self._forget_all_but_ports()
        if self._applied is not None:
            shape, elements = await self._look(pin_rules.FAMILY)
            if shape != self._shapes.get(self.table) or elements != self._applied:
                _log.warning("wall_was_changed", part="pins", table=self.table)
                self._applied = None
        await self._apply_pins()
        if _learns_from_link_local(self.bridge):
            await learn_nothing_from_link_local(self.bridge)

    def _forget_all_but_ports(self) -> None:
        """The link of a sandbox ends with it, and no other will have its name.

        And a workload with power over its network may have passed off a port of another bridge as its own.
        """
        try:
            ports = netlink_facts.ports_of(self.bridge)
        except OSError:
            ports = _links()
        self._ports = {key: port for key, port in self._ports.items() if port.name in ports}

    async def _take_over(self) -> None:
        """Go on with what an earlier runner pinned: a workload may hide what can be seen of it now."""
        _, elements = await self._look(pin_rules.FAMILY)
        for text in elements.get("pinned", ()):
            port = Port(*text.split(" . "))
            if port.name not in {known.name for known in self._ports.values()}:
                self._ports[f"earlier {port.name}"] = port

    async def _apply_pins(self) -> None:
        """Bring the table to what is wanted; a difference that cannot be made makes it anew."""
        wanted = self._wanted()
        if self._applied is not None:
            try:
                if text := pin_rules.changes(self.table, self._applied, wanted):
                    await apply_rules(text)
            except NetworkFault as error:
                _log.warning("wall_was_changed", part="pins", table=self.table, reason=str(error))
                self._applied = None
        if self._applied is None:
            await apply_rules(pin_rules.whole_table(self.table, wanted))
            await self._learn_shape(pin_rules.FAMILY, self.table)
        self._applied = wanted

    async def _check_egress(self) -> None:
        if not self._egress.deny:
            return
        self._check_bridge()
        own = await asyncio.to_thread(addresses_of_node)
        closed = closed_places(self._egress, self._host_addresses, own)
        text = egress_rules.whole_table(self.table, self.bridge, closed)
        if text == self._egress_text:
            shape, _ = await self._look(egress_rules.FAMILY)
            if shape == self._shapes.get(text):
                return
            _log.warning("wall_was_changed", part="egress", table=self.table)
        await apply_rules(text)
        if text != self._egress_text:
            self._shapes.pop(self._egress_text, None)
        await self._learn_shape(egress_rules.FAMILY, text)
        self._egress_text = text

    async def _look_up_host(self) -> None:
        """One that is not found now is where it was."""
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                self._host_addresses = await asyncio.to_thread(addresses_of, self._egress)
        except TimeoutError as error:
            raise NetworkFault(
                f"{self._egress.host} was not looked up in {_LOOK_UP_SECONDS:.0f} s"
            ) from error

    async def _learn_shape(self, family: str, rules: str) -> None:
        """Note how `nft` shows these rules; once, or a change just behind ours would be taken for ours."""
        if rules not in self._shapes:
            self._shapes[rules], _ = await self._look(family)

    def _check_bridge(self) -> None:
        if not _NAME.fullmatch(self.bridge) or self.bridge not in _links():
            raise NetworkFault(
                f"this runner does not see the bridge {self.bridge}; is the engine on this machine?"
            )

    async def _look(self, family: str) -> tuple[_Shape, Elements]:
        async def listed() -> tuple[_Shape, Elements]:
            return read_table(await list_table(family, table))

        table = self.table
        try:
            return await self._shown.get((family, table), listed)
        except NetworkFault:
            return [], {}

    async def _remove_old(self) -> None:
        """Remove our tables of bridges that are gone, and an egress filter that is not wanted any more."""
        links = _links()
        unwanted = {(egress_rules.FAMILY, self.table)} if not self._egress.deny else set()
        for family, name in await self._shown.get("tables", list_tables):
            is_ours = family in _FAMILIES and name.startswith(_PREFIX)
            if (is_ours and name.removeprefix(_PREFIX) not in links) or (family, name) in unwanted:
                await apply_rules(f"delete table {family} {name}\n")


def _links() -> set[str]:
    """Not by /sys, which shows the links of whoever mounted it."""
    return {name for _, name in socket.if_nameindex()}


def _learns_from_link_local(bridge: str) -> bool:
    try:
        return netlink_facts.learns_from_link_local(bridge)
    except OSError:
        return True


def read_table(rows: Iterable[dict[str, Any]]) -> tuple[_Shape, Elements]:
    """A table without its handles, and apart from that the elements of the sets that ports stand in."""
    shape: _Shape = []
    elements: Elements = {}
    for row in rows:
        for kind, facts in row.items():
            kept = {key: value for key, value in facts.items() if key != "handle"}
            if kind == "set" and facts["family"] == pin_rules.FAMILY:
                elements[facts["name"]] = frozenset(_text(element) for element in kept.pop("elem", ()))
            shape.append({kind: kept})
    return shape, elements


def _text(element: Any) -> str:
    return " . ".join(element["concat"]) if isinstance(element, dict) else str(element)


def _sentence(part: str, error: NetworkFault | OSError) -> str:
    reason = str(error) if isinstance(error, NetworkFault) else error.strerror or str(error)
    if part == "pins":
        return (
            "the bridge of this node's workloads is not filtered, so those with NET_RAW or privileges can "
            f"take each other's address: {reason}"
        )
    if part == "host":
        return (
            "WORKLOAD_EGRESS_DENY closes the ports of the host at most where it was before, since its "
            f"address is not known: {reason}"
        )
    return f"WORKLOAD_EGRESS_DENY is not in force on this node: {reason}"
