"""A user with a command line, a gateway and a VPS whose SSH is a stock one."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost, task_record
from support.clients.vps_sshd import VpsSshd
from support.host.gateway import HELENS, IVANS, GatewayHarness


@dataclass(frozen=True)
class Place:
    """A host with its gateway, Helen's VPS on it, and Helen's own machine."""

    host: StubHost
    harness: GatewayHarness
    sshd: VpsSshd
    command: CommandLine

    @property
    def home(self) -> Path:
        return self.command.home

    @property
    def config(self) -> Path:
        """Where stock clients look; `ssh -J` cannot be given a path with spaces."""
        return self.home.parent / "config"

    def tell(self, *records: dict[str, Any]) -> None:
        """What the host says of VPSs."""
        self.host.answer("GET", "/api/vps", list(records))
        for record in records:
            self.host.answer("GET", f"/api/status/{record['task_id']}", record)

    def stock(
        self, *argv: str, said: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client that knows nothing but the configuration that `ssh config` wrote."""
        return subprocess.run(
            [argv[0], "-F", str(self.config), *argv[1:]],
            env=self.command.environment(**(variables or {})),
            input=said,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def write_config(self, *arguments: str) -> str:
        written = self.command.run("ssh", "config", "-i", str(self.sshd.user_key), *arguments)
        assert written.returncode == 0, written.stderr
        self.config.write_bytes(b"BatchMode yes\n" + written.stdout)
        return written.stdout.decode()


def resolve(ref: str) -> Any:
    from support.clients.stub_host import Answer

    known = {"lab": HELENS, str(HELENS): HELENS, "4242": HELENS, "attic": IVANS}
    return (
        Answer({"task_id": str(known[ref])}) if ref in known else Answer({"detail": "there is no task"}, 404)
    )


def lab(sshd: VpsSshd, **fields: Any) -> dict[str, Any]:
    """Helen's VPS as the host describes it."""
    told = {"name": "lab", "task_type": "vps", "status": "running", "ssh_key_mode": "upload"}
    return task_record(str(HELENS), **told, host_public_key=f"{sshd.host_public_key} lab") | fields
