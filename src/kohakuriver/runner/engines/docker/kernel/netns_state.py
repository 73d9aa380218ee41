"""What a network namespace holds, as `/proc/<pid>/net` shows it, and whether it is as it was made.

Compared are interfaces, addresses, routes and every kind of socket (one in TIME_WAIT is a socket);
neighbours other than the gateway and processes other than the sandbox's own count as traces too. Counters,
timers and kernel pointers are left out because they move by themselves. A sandbox's own processes are those
in its process namespace, in which no workload is; their connections to the runner may come and go. Blocking;
belongs in a thread.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process that is not mistaken for a later one with its number; None-like 0 inode: unknown."""

    pid: int
    start_ticks: int
    netns_inode: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the client of a sandbox connects to, as the kernel's table of connections says it."""

    text: str

    @classmethod
    def of(cls, address: str, port: int) -> "Endpoint":
        number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
        return cls(f"{number:08X}:{port:04X}")


def mark_process(pid: int, proc: Path = _PROC) -> ProcessMark:
    """Raises OSError if the process is gone or not ours to look at."""
    return ProcessMark(pid, _start_ticks(str(pid), proc), os.stat(proc / str(pid) / "ns" / "net").st_ino)


def is_alive(mark: ProcessMark, proc: Path = _PROC) -> bool:
    try:
        return mark_process(mark.pid, proc) == mark
    except (OSError, ValueError, IndexError):
        return False


def port_name(pid: int, proc: Path = _PROC) -> str:
    """Name, in the namespace of this process, of the other end of `eth0`; raises OSError if there is none."""
    seen = proc / str(pid) / "root" / "sys" / "class" / "net" / "eth0" / "iflink"
    return socket.if_indextoname(int(seen.read_text()))


def _columns(*wanted: int) -> Callable[[str], str]:
    return lambda line: " ".join(cell for number, cell in enumerate(line.split()) if number in wanted)


def _first_word(line: str) -> str:
    return line.split(maxsplit=1)[0]


def _unix_socket(line: str) -> str:
    cells = line.split()
    return " ".join((*cells[3:6], *cells[7:]))


_INET = _columns(1, 2, 3)  # local address, remote address, state
# file under /proc/<pid>/net -> what of a line is compared; header lines are the same on both sides
_TABLES: dict[str, Callable[[str], str]] = {
    "dev": _first_word,
    "if_inet6": _columns(0, 2, 3, 5),
    "fib_trie": str.strip,
    "route": _columns(0, 1, 2, 3, 6, 7),
    "ipv6_route": _columns(0, 1, 2, 3, 4, 5, 9),
    "tcp": _INET,
    "tcp6": _INET,
    "udp": _INET,
    "udp6": _INET,
    "udplite": _INET,
    "udplite6": _INET,
    "raw": _INET,
    "raw6": _INET,
    "icmp": _INET,
    "icmp6": _INET,
    "unix": _unix_socket,
    "packet": _columns(2, 3, 4),
    "netlink": _columns(1, 2, 3),
    "sctp/eps": _columns(2, 3, 4, 5),
    "sctp/assocs": _columns(3, 4, 11, 12),
}

NetnsState = dict[str, list[str]]


def read_netns(
    pid: int, endpoint: Endpoint | None = None, own_sockets: Set[str] | None = None, proc: Path = _PROC
) -> NetnsState:
    """Return the tables of the namespace of a process; raises OSError if it is gone.

    Left out are connections to the endpoint: those of `own_sockets`, or all where nobody else can have any.
    """
    folder = proc / str(pid) / "net"
    state: NetnsState = {}
    for name, kept in _TABLES.items():
        path = folder / name
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.strip()]
            if name == "tcp" and endpoint is not None:
                lines = [line for line in lines if not _is_of_client(line.split(), endpoint, own_sockets)]
            state[name] = sorted(map(kept, lines))
    return state


def _is_of_client(cells: list[str], endpoint: Endpoint, own_sockets: Set[str] | None) -> bool:
    return cells[2] == endpoint.text and (own_sockets is None or cells[9] in own_sockets)


def traces(
    mark: ProcessMark, made: NetnsState, gateway: str, endpoint: Endpoint | None = None, proc: Path = _PROC
) -> list[str]:
    """Say what of the namespace is not as it was made; empty: as new. Raises OSError if it cannot be seen."""
    if not is_alive(mark, proc):
        return ["its own process ended"]
    own, others = _processes_in(mark, proc)
    now = read_netns(mark.pid, endpoint, _sockets_of(own, proc), proc)
    found = [name for name in sorted(made.keys() | now.keys()) if made.get(name) != now.get(name)]
    arp = (proc / str(mark.pid) / "net" / "arp").read_text().splitlines()[1:]
    found += [f"neighbour {line.split()[0]}" for line in arp if line.split()[:1] != [gateway]]
    found += [f"process {pid}" for pid in others]
    return found


def has_ipv6_loopback(pid: int, proc: Path = _PROC) -> bool:
    """Whether ::1 is an address in the process's namespace; False where that cannot be seen."""
    try:
        table = (proc / str(pid) / "net" / "if_inet6").read_text()
    except OSError:
        return False
    return any(line.split()[-1:] == ["lo"] for line in table.splitlines())


def _processes_in(mark: ProcessMark, proc: Path) -> tuple[list[int], list[int]]:
    """The sandbox's own processes, but for its first, and those of others."""
    own: list[int] = []
    others: list[int] = []
    within = os.stat(proc / str(mark.pid) / "ns" / "pid").st_ino
    for entry in os.listdir(proc):
        if not entry.isdigit() or int(entry) == mark.pid:
            continue
        namespaces = proc / entry / "ns"
        try:
            if os.stat(namespaces / "net").st_ino == mark.netns_inode:
                is_own = os.stat(namespaces / "pid").st_ino == within
                (own if is_own else others).append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        except PermissionError:
            # Closed to us, such as the machine's first process. One that is older than the namespace was
            # not started in it by a workload; a younger one cannot be told, and counts.
            if _start_ticks(entry, proc) >= mark.start_ticks:
                others.append(int(entry))
    return own, others


def _sockets_of(pids: Iterable[int], proc: Path) -> set[str]:
    """The numbers that sockets of these processes have in the tables."""
    return {number for pid in pids for number in _sockets_in(proc / str(pid) / "fd")}


def _sockets_in(folder: Path) -> Iterator[str]:
    for name in _names_in(folder):
        try:
            target = os.readlink(folder / name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed while we looked
        if target.startswith("socket:["):
            yield target[8:-1]


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _start_ticks(pid: str, proc: Path) -> int:
    """Field 22 of the process's stat, counted behind the name, which may hold anything."""
    try:
        return int((proc / pid / "stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1
