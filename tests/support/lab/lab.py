"""The lab: a host and several nodes on this machine, of which everything can be broken and mended.

What is broken stays so until it is mended; to mend what is whole, or start what runs, changes nothing. `stop`
leaves nothing behind, whatever happened before.
"""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kohakuriver.runner.local_temp import data_folder
from support.cluster.cluster import Cluster, Daemon
from support.lab.clock import MovableClock
from support.lab.disk import mount_disk
from support.lab.leftovers import leftovers_on
from support.lab.network import Direction, LabNetwork, free_subnet
from support.lab.node import LabNode, NodePlace
from support.lab.registry import LabRecord, all_labs, clear_away
from support.machine.namespaces import Namespaces
from support.machine.small_disk import SmallDisk

HOST = "host"
_HOST_STATE_MIB = 64


class Lab(Cluster):
    """`start` it, break it, `stop` it. Nodes are called n1, n2 and so on. Without a root it makes its own."""

    def __init__(self, root: Path | None = None, *, kept: bool = False) -> None:
        for left in all_labs():
            if left.is_abandoned():
                clear_away(left)
        self.record = LabRecord.make(root, kept=kept)
        self._subnet = free_subnet()
        super().__init__(self.record.root, f"{self._subnet}.1")
        self.nodes: dict[str, LabNode] = {}
        self._hub: Namespaces | None = None
        self._disks: dict[str, SmallDisk] = {}
        self._clocks: dict[str, MovableClock] = {}

    # --- whole ---------------------------------------------------------------------------------------------

    def start(self, nodes: int = 3, **host_settings: object) -> None:
        """Return when the host is healthy and all nodes are online."""
        self._make_host_place()
        self._hub = Namespaces.make("hub", self.record.mark)
        network = LabNetwork(self.record.lab_id, self._subnet, self._hub)
        with ThreadPoolExecutor(nodes + 1) as hands:
            host = hands.submit(self.start_host, **host_settings)
            list(hands.map(lambda number: self._make_node(number, network), range(1, nodes + 1)))
            host.result()
            for node in self.nodes.values():
                node.write_settings(SHARED_DIR=str(self.shared), JOIN_TOKEN=self.join_token())
            list(hands.map(self._start_node, self.nodes))
        self.nodes = dict(sorted(self.nodes.items()))

    def _make_host_place(self) -> None:
        self._disks[HOST] = mount_disk(self.database.parent, _HOST_STATE_MIB, self.record.disk_source)
        self._clocks[HOST] = MovableClock(self.root / "host-clock")
        self.host_environment = {**self.record.mark, **self._clocks[HOST].environment}

    def _make_node(self, number: int, network: LabNetwork) -> None:
        record, name = self.record, f"n{number}"
        node = LabNode(
            NodePlace(
                name=name,
                address=network.node_address(number),
                host=(self.address, self.port),
                folder=self.root / name,
                scratch=record.scratch,
                mark=record.mark,
                prefix=record.cgroup_prefix,
                disk_source=record.disk_source,
            )
        )
        self.nodes[name] = node
        self._disks[name], self._clocks[name], self.runners[name] = node.disk, node.clock, node.runner
        network.attach(number, node.namespaces)
        node.docker.start()

    def _start_node(self, name: str) -> None:
        self.nodes[name].docker.await_answer()
        self.start_runner(name)
        self.await_node(name)

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        clear_away(self.record)
        for process in self._children:
            process.wait()

    @property
    def _children(self) -> "Iterator[subprocess.Popen[bytes]]":
        """The processes that this one started last in each place; those before were waited for."""
        if self._hub is not None:
            yield self._hub.holder
        for node in self.nodes.values():
            yield from node.processes()
        if self.host is not None and self.host.process is not None:
            yield self.host.process

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def local_temp(self, node: str) -> Path:
        """What tasks on that node see as /local_temp."""
        return data_folder(self.nodes[node].local_temp)

    def leftovers(self, node: str) -> list[str]:
        """Return a line for each thing that should not be there when no task lives."""
        return leftovers_on(self.nodes[node])

    def cli_environment(self) -> dict[str, str]:
        return {
            "KOHAKURIVER_HOST": self.address,
            "KOHAKURIVER_PORT": str(self.port),
            "KOHAKURIVER_TOKEN": self.token,
        }

    # --- processes -----------------------------------------------------------------------------------------

    @property
    def host_alive(self) -> bool:
        return self.host is not None and self.host.is_running()

    def start_host(self, **settings: object) -> Daemon:
        """Return when it is healthy; settings of an earlier start are kept."""
        if self.host is not None and self.host.is_running():
            return self.host
        return super().start_host(**settings)

    def kill_host(self) -> None:
        assert self.host is not None
        self.host.end(signal.SIGKILL)

    def stop_host(self) -> None:
        assert self.host is not None
        self.host.end()

    def start_runner(self, node: str) -> Daemon:
        """Start it unless it runs, and its relay; whether it reaches the host is not waited for."""
        self.nodes[node].start_relay()
        runner = self.nodes[node].runner
        if not runner.is_running():
            runner.start()
        return runner

    def kill_runner(self, node: str) -> None:
        self.nodes[node].runner.end(signal.SIGKILL)

    def stop_runner(self, node: str) -> None:
        self.nodes[node].runner.end()

    def start_dockerd(self, node: str) -> None:
        """Return when it answers."""
        self.nodes[node].docker.start()
        self.nodes[node].docker.await_answer()

    def kill_dockerd(self, node: str) -> None:
        """End it at once; containers live on."""
        self.nodes[node].docker.end(signal.SIGKILL)

    def stop_dockerd(self, node: str) -> None:
        """End it in order; containers live on."""
        self.nodes[node].docker.end()

    # --- links ---------------------------------------------------------------------------------------------

    def cut(self, node: str, direction: str = "both") -> None:
        """Let no packet of the node through: `to_host` what it sends, `from_host` what comes to it."""
        self.nodes[node].drop(Direction(direction))

    def cut_port(self, node: str, *, refuse: bool = False) -> None:
        """Close only the port of the node's runner; what the node sends gets through."""
        self.nodes[node].close_port(refuse=refuse)

    def slow(
        self,
        node: str,
        delay_ms: int = 0,
        loss_percent: float = 0,
        duplicate_percent: int = 0,
        reorder_percent: int = 0,
    ) -> None:
        """Loss is one of packets both ways; the rest concerns messages between host and runner, both ways."""
        if loss_percent:
            self.nodes[node].drop(Direction.BOTH, loss_percent)
        self.nodes[node].disturb(
            delay_ms=delay_ms, duplicate_percent=duplicate_percent, reorder_percent=reorder_percent
        )

    def disturb(self, node: str, **amounts: int) -> None:
        """Have messages delayed, doubled, replayed, lost; see `relay.Disturbance`."""
        self.nodes[node].disturb(**amounts)

    def mend(self, node: str) -> None:
        """End all that `cut`, `cut_port`, `slow` and `disturb` began."""
        self.nodes[node].mend()

    # --- disks and clocks ----------------------------------------------------------------------------------

    def fill_disk(self, where: str) -> None:
        """`host`: the disk of its database; a node: that of its runner's state."""
        self._disks[where].fill()

    def free_disk(self, where: str) -> None:
        self._disks[where].empty()

    def shift_clock(self, process: str, seconds: float) -> None:
        """Set the wall clock of `host`, or of a node's runner, that far from the true time; 0 mends it."""
        self._clocks[process].shift(seconds)


@contextlib.contextmanager
def running_lab(root: Path, nodes: int = 3, **host_settings: object) -> Iterator[Lab]:
    """A lab with its nodes online; gone at the end."""
    with Lab(root) as lab:
        lab.start(nodes, **host_settings)
        yield lab
