"""Namespaces of a pretended machine: network, mounts (with a /run of its own) and host name.

They live as long as a process that does nothing else, so that daemons in them can end and begin again. The
process namespace is the machine's, so that pids mean the same outside, and all files but /run are too.
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from kohakuriver.files.system.calls import CLONE_NEWNET, setns

_T = TypeVar("_T")

_SCRIPT = (
    'mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up && hostname "$0" && echo ready && '
    "exec sleep infinity"
)


@dataclass(frozen=True)
class Namespaces:
    """`holder` is the process that keeps them. What is mounted outside later is not seen inside."""

    holder: "subprocess.Popen[bytes]"

    @classmethod
    def make(cls, hostname: str, environment: Mapping[str, str] | None = None) -> "Namespaces":
        """Return when they are ready; `environment` is added to that of the holder."""
        options = ["--net", "--mount", "--uts", "--propagation", "slave"]
        holder = subprocess.Popen(
            ["unshare", *options, "sh", "-c", _SCRIPT, hostname],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert holder.stdout is not None
        assert holder.stderr is not None
        with holder.stdout as said, holder.stderr as complaints:
            if said.readline() != b"ready\n":
                raise RuntimeError(f"no namespaces for {hostname}: {complaints.read().decode()}")
        return cls(holder)

    @property
    def pid(self) -> int:
        return self.holder.pid

    def argv(self, *command: str) -> list[str]:
        """Arguments that run the command inside; the process that is started becomes the command."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--", *command]

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run the command inside to its end; a failure says what the command said."""
        result = subprocess.run(self.argv(*command), capture_output=True, text=True, check=False, timeout=30)
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stderr or result.stdout}")
        return result

    def call(self, work: Callable[[], _T]) -> _T:
        """Call it in a thread that is in the network namespace, as are the processes that it starts."""
        with ThreadPoolExecutor(1, initializer=self._enter_network) as thread:
            return thread.submit(work).result()

    def _enter_network(self) -> None:
        namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(namespace, CLONE_NEWNET)
        finally:
            os.close(namespace)

    def end(self) -> None:
        """End the holder; the namespaces go with the last process in them."""
        self.holder.kill()
        self.holder.wait()
