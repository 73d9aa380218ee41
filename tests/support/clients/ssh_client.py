"""Keys for VPSs, and the stock SSH client as somebody at home has it."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SshKey:
    path: Path

    @property
    def private(self) -> str:
        return self.path.read_text()

    @property
    def public(self) -> str:
        return self.path.with_suffix(".pub").read_text().strip()


def make_key(path: Path) -> SshKey:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return SshKey(path)


@dataclass(frozen=True, slots=True)
class SshClient:
    """Trusts the one host key and no other, has the one key or none, and asks nobody anything."""

    address: str
    host_key: SshKey
    key: SshKey | None
    folder: Path
    port: int = 22
    """Another one: of a relay on this machine that leads to the VPS."""

    def options(self) -> list[str]:
        known = self.folder / f"known-{self.address}-{self.host_key.path.name}"
        # As a whole, since many clients of one VPS may be there at once.
        draft = known.with_name(f"{known.name}.draft")
        draft.write_text(f"{self.address} {self.host_key.public}\n")
        draft.rename(known)
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.key.path) if self.key else "none",
            "IdentityAgent": "none",
            "ConnectTimeout": "10",
        }
        if self.port != 22:
            options |= {"HostName": "127.0.0.1", "Port": str(self.port), "HostKeyAlias": self.address}
        pairs = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
        return ["-F", "/dev/null", *pairs]

    async def run(self, *command: str, user: str = "root") -> tuple[int, str]:
        """Exit status (255: ssh's own failure) and all that was said."""
        argv = ["ssh", *self.options(), f"{user}@{self.address}", *command]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(60):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said.decode()
