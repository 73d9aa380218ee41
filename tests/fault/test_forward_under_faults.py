"""What breaks on the way of a forwarded port ends its streams at most; the workload keeps its network."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import pytest

from support.cluster.cluster import wait_for
from support.cluster.forward_command import ForwardCommand, forwarding
from support.lab.lab import Lab
from support.lab.sandboxes import client_beside
from support.workloads import witness
from support.workloads.mounted_python import python_task

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "n2"
CUT_SECONDS = 20.0
OUTSIDE = b"from outside\n"


@dataclass(frozen=True)
class Stage:
    """A workload that watches its network, and `forward`, which leads to it."""

    lab: Lab
    task_id: str
    forward: ForwardCommand

    def open(self) -> socket.socket:
        """A connection that has reached the workload."""
        return cast("socket.socket", wait_for(self._opened, "a connection that reaches the workload"))

    def _opened(self) -> socket.socket | None:
        with ExitStack() as stack, suppress(ConnectionError):
            connection = stack.enter_context(self.forward.connect())
            self.ask(connection)
            stack.pop_all()
            return connection
        return None

    def ask(self, connection: socket.socket) -> dict[str, object]:
        connection.sendall(b"?\n")
        line = connection.makefile().readline()
        if not line:
            raise ConnectionResetError("the stream has ended")
        return dict(json.loads(line))


@contextmanager
def place_outside(lab: Lab) -> Iterator[int]:
    """A service of the host's machine; its port."""

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(OUTSIDE)

    with socket.create_server((lab.address, 0)) as listener:
        answering = threading.Thread(target=answer)
        answering.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    answering.join()


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    with (
        place_outside(lab) as port,
        python_task(lab, NODE, witness.__name__, lab.address, port) as task_id,
        forwarding(lab, task_id, f"0:{witness.PORT}") as forward,
    ):
        yield Stage(lab, task_id, forward)


def kill_client(stage: Stage) -> None:
    os.kill(client_beside(stage.lab.nodes[NODE], stage.task_id).pid, signal.SIGKILL)


def kill_runner(stage: Stage) -> None:
    stage.lab.kill_runner(NODE)
    stage.lab.start_runner(NODE)


def kill_host(stage: Stage) -> None:
    stage.lab.kill_host()
    stage.lab.start_host()


@pytest.mark.parametrize("kill", [kill_client, kill_runner, kill_host])
def test_a_kill_ends_streams_and_new_ones_reach_a_workload_whose_network_lives(
    stage: Stage, kill: Callable[[Stage], None]
) -> None:
    with stage.open() as before:
        earlier = stage.ask(before)
        kill(stage)
        with pytest.raises(ConnectionError):
            stage.ask(before)
    with stage.open() as after:
        network_is_as_it_was(earlier, stage.ask(after))
    stage.forward.await_said("connected again")
    assert stage.forward.interrupt() == 130


def test_a_link_that_is_cut_for_a_while_holds_streams_up_and_loses_nothing(stage: Stage) -> None:
    with stage.open() as before:
        earlier = stage.ask(before)
        stage.lab.cut(NODE)
        cut_at = time.monotonic()
        before.sendall(b"?\n")
        stage.lab.await_node(NODE, "offline")
        wait_for(lambda: time.monotonic() - cut_at > CUT_SECONDS, "the time of the cut", 2 * CUT_SECONDS)
        stage.lab.mend(NODE)
        before.settimeout(60)
        network_is_as_it_was(earlier, json.loads(before.makefile().readline()))
        with stage.open() as after:
            network_is_as_it_was(earlier, stage.ask(after))
    assert [line for line in stage.forward.said if "trying again" in line] == []


def network_is_as_it_was(earlier: dict[str, object], now: dict[str, object]) -> None:
    assert now["broken"] == ""
    assert now["carried"] > earlier["carried"]  # type: ignore[operator]
    assert now["outside"] == OUTSIDE.decode()
