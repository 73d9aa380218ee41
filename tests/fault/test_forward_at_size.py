"""A thousand connections through one `forward`: none waits for another, and what waits has its bounds."""

import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from support.cluster.cluster import wait_for
from support.cluster.forward_command import ForwardCommand, forwarding
from support.lab.lab import Lab
from support.lab.sandboxes import Measured, client_beside
from support.workloads import flood
from support.workloads.mounted_python import python_task

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "n2"
CONNECTIONS = 1000
FEW_FILES = 256
READ_TO_THE_END = 20
QUESTION = bytes(range(256)) * 80
MIB = 1 << 20
SANDBOX_MIB = 192


@dataclass(frozen=True)
class Hop:
    """A process on the way: what it takes before, and how much more it may at most, and when all is over."""

    name: str
    process: Measured
    before_mib: int
    burst_mib: int
    rest_mib: int

    def more_mib(self) -> int:
        return self.process.now_mib - self.before_mib

    def most_more_mib(self) -> int:
        return self.process.most_mib - self.before_mib

    def is_at_rest(self) -> bool:
        return self.more_mib() <= self.rest_mib


def hops_of(lab: Lab, task_id: str, forward: ForwardCommand) -> list[Hop]:
    """As `docs/design/0039-forwarding.md` states them."""
    assert lab.host is not None
    host, runner = lab.host.process, lab.nodes[NODE].runner.process
    assert host is not None
    assert runner is not None

    def hop(name: str, process: Measured, burst_mib: int, rest_mib: int) -> Hop:
        process.forget_most()
        return Hop(name, process, process.now_mib, burst_mib, rest_mib)

    return [
        hop("client", client_beside(lab.nodes[NODE], task_id), 64, 64),
        hop("runner", Measured(runner.pid), 72, 8),
        hop("host", Measured(host.pid), 16, 8),
        hop("forward", Measured(forward.pid), 96, 96),
    ]


@pytest.fixture
def task(lab: Lab) -> Iterator[str]:
    """One with the flood. This process may have a connection in each of many files meanwhile."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    with python_task(lab, NODE, flood.__name__) as task_id:
        yield task_id
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextmanager
def connections(forward: ForwardCommand, port: int, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(forward.connect(port)) for _ in range(count)]


def tell(control: socket.socket, line: str) -> int:
    control.sendall(f"{line}\n".encode())
    return int(control.makefile().readline())


def received(connection: socket.socket, size: int) -> bytes:
    with connection.makefile("rb") as file:
        return file.read(size)


def test_one_that_never_reads_holds_up_none_of_a_thousand(lab: Lab, task: str) -> None:
    ports = [f"0:{port}" for port in (flood.FLOOD, flood.ECHO, flood.CONTROL)]
    with forwarding(lab, task, *ports, files=FEW_FILES) as forward, forward.connect(2) as control:
        with connections(forward, 0, 1) as (unread,), connections(forward, 1, CONNECTIONS) as others:
            tell(control, "open 1")
            tell(control, "go")
            for connection in others:
                connection.sendall(QUESTION)
            for connection in others:
                assert received(connection, len(QUESTION)) == QUESTION
            assert tell(control, "rest") < flood.EACH_BYTES
            assert received(unread, flood.EACH_BYTES) == flood.said(0)
        assert not any("nothing listens" in line or "broken" in line for line in forward.said)


def test_what_nobody_reads_of_a_thousand_connections_takes_no_more_memory_than_is_stated(
    lab: Lab, task: str
) -> None:
    ports = [f"0:{port}" for port in (flood.FLOOD, flood.SINK)]
    with (
        forwarding(lab, task, *ports) as forward,
        forwarding(lab, task, f"0:{flood.CONTROL}") as other,
        other.connect() as control,
    ):
        hops = hops_of(lab, task, forward)
        client = hops[0].process
        with connections(forward, 0, CONNECTIONS) as unread:
            tell(control, f"open {CONNECTIONS}")
            # What `forward` does not take waits before it, and then within it what its users do not take.
            forward.process.send_signal(signal.SIGSTOP)
            tell(control, "go")
            tell(control, "rest")
            forward.process.send_signal(signal.SIGCONT)
            assert tell(control, "rest") < CONNECTIONS * flood.EACH_BYTES
            wait_for(Measured(forward.pid).is_calm, "forward to have all that it takes")
            assert client.now_mib + client.kernel_mib(flood.FLOOD) <= SANDBOX_MIB
            for connection in unread[:READ_TO_THE_END]:
                data = received(connection, flood.EACH_BYTES)
                assert data == flood.said(int.from_bytes(data[:8]))
        with connections(forward, 1, CONNECTIONS) as untaken:
            tell(control, f"open {2 * CONNECTIONS}")
            for connection in untaken:
                connection.setblocking(False)
                connection.send(bytes(MIB))
            wait_for(Measured(forward.pid).is_calm, "forward to have sent all that is taken")
            assert client.now_mib + client.kernel_mib(flood.SINK) <= SANDBOX_MIB
        most = {hop.name: hop.most_more_mib() for hop in hops}
        assert {hop.name: more for hop in hops if (more := most[hop.name]) > hop.burst_mib} == {}, most
        for hop in hops:
            wait_for(hop.is_at_rest, f"{hop.name} to give memory back")
        assert client_beside(lab.nodes[NODE], task) == client
