"""Which host this runner belongs to, as it is kept on disk after enrolment. A runner obeys no other."""

from pathlib import Path

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.identity import fingerprint_of, read_private, write_private


class HostPin(msgspec.Struct, frozen=True):
    """The host's identity and the cluster that it is the head of."""

    cluster_id: str
    host_public_key: str

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.host_public_key)


def load_pin(path: Path) -> HostPin | None:
    """Read the pin, None before enrolment; InvalidInput for a file that is damaged or open to others."""
    if not path.exists():
        return None
    try:
        pin = msgspec.json.decode(read_private(path), type=HostPin)
        fingerprint_of(pin.host_public_key)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{path} is damaged; remove it and enrol this runner anew") from error
    return pin


def save_pin(path: Path, pin: HostPin) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(pin)) + b"\n")
