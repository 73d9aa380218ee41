"""What counts as a trace of a workload in the network of its sandbox, where a client runs in it beside."""

from pathlib import Path

import pytest

from kohakuriver.runner.engines.docker.kernel.netns_state import (
    Endpoint,
    NetnsState,
    ProcessMark,
    mark_process,
    read_netns,
    traces,
)

GATEWAY = "172.30.0.1"
ENDPOINT = Endpoint.of(GATEWAY, 8001)
FIRST, CLIENT, WORKLOAD = 100, 101, 200
NETWORK, OWN_PIDS, OTHER_PIDS = "net-1", "pid-1", "pid-2"
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ARP = "IP address       HW type     Flags       HW address            Mask     Device\n"


class Proc:
    """A `/proc` of a sandbox: its first process, its client, and what else is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connections: list[str] = []
        for pid in (FIRST, CLIENT):
            self.process(pid, NETWORK, OWN_PIDS)
        (folder / str(FIRST) / "net").mkdir()
        (folder / str(FIRST) / "net" / "arp").write_text(ARP)
        self.write()

    def process(self, pid: int, network: str, pids: str) -> None:
        folder = self.folder / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "fd").mkdir()
        (folder / "stat").write_text(f"{pid} (a b) {' '.join(['0'] * 18)} {pid} 0")
        for kind, name in (("net", network), ("pid", pids)):
            namespace = self.folder / name
            namespace.touch()
            (folder / "ns" / kind).hardlink_to(namespace)

    def connect(self, pid: int | None, inode: int, remote: str = ENDPOINT.text, state: str = "01") -> None:
        """A connection of a process, or of none any more."""
        if pid is not None:
            folder = self.folder / str(pid) / "fd"
            (folder / str(len(list(folder.iterdir())))).symlink_to(f"socket:[{inode}]")
        self.connections.append(f"0: 0200001E:8000 {remote} {state} 0:0 00:0 0 65534 0 {inode} 1 0")
        self.write()

    def write(self) -> None:
        (self.folder / str(FIRST) / "net" / "tcp").write_text(HEADER + "\n".join(self.connections) + "\n")

    @property
    def mark(self) -> ProcessMark:
        return mark_process(FIRST, self.folder)

    def traces(self, made: NetnsState) -> list[str]:
        return traces(self.mark, made, GATEWAY, ENDPOINT, self.folder)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def made(proc: Proc) -> NetnsState:
    return read_netns(FIRST, ENDPOINT, proc=proc.folder)


def test_the_endpoint_is_said_as_the_kernel_says_it() -> None:
    assert Endpoint.of("127.0.0.1", 80).text in ("0100007F:0050", "7F000001:0050")


def test_the_sandboxs_own_client_and_its_connection_are_no_traces(proc: Proc, made: NetnsState) -> None:
    proc.connect(CLIENT, 7)
    assert proc.traces(made) == []


def test_a_client_that_was_connected_when_the_sandbox_was_made_may_be_gone(proc: Proc) -> None:
    proc.connect(CLIENT, 7)
    made = read_netns(FIRST, ENDPOINT, proc=proc.folder)
    proc.connections.clear()
    proc.write()
    assert proc.traces(made) == []


@pytest.mark.parametrize("state", ["01", "06"])
def test_a_connection_to_the_endpoint_that_is_not_the_clients_is_one(
    proc: Proc, made: NetnsState, state: str
) -> None:
    proc.connect(CLIENT, 7)
    proc.connect(None, 8, state=state)
    assert proc.traces(made) == ["tcp"]


def test_a_connection_of_the_client_to_elsewhere_is_one(proc: Proc, made: NetnsState) -> None:
    proc.connect(CLIENT, 7, remote="0100007F:1F90")
    assert proc.traces(made) == ["tcp"]


def test_a_process_of_another_process_namespace_is_one_with_its_connections(
    proc: Proc, made: NetnsState
) -> None:
    proc.process(WORKLOAD, NETWORK, OTHER_PIDS)
    proc.connect(WORKLOAD, 9)
    assert proc.traces(made) == ["tcp", f"process {WORKLOAD}"]


def test_processes_elsewhere_are_none(proc: Proc, made: NetnsState) -> None:
    proc.process(WORKLOAD, "net-2", OTHER_PIDS)
    assert proc.traces(made) == []
