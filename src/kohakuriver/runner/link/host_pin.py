"""Which host this runner belongs to, as it is kept on disk after enrolment. A runner obeys no other."""

from pathlib import Path

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.private_files import read_private, write_private
from kohakuriver.wire.trust.identity import fingerprint_of

_MOST_FORMER = 20


class HostPin(msgspec.Struct, frozen=True):
    """The host's identity and the cluster that it is the head of.

    `former_cluster_ids`: what the same host called its cluster before; a state that was made anew has
    another id, and what runs here was made under the old one.
    """

    cluster_id: str
    host_public_key: str
    former_cluster_ids: list[str] = []

    @property
    def cluster_ids(self) -> tuple[str, ...]:
        """All of them, the present one first."""
        return (self.cluster_id, *self.former_cluster_ids)

    def with_cluster(self, cluster_id: str) -> "HostPin":
        former = [each for each in self.cluster_ids if each != cluster_id]
        return HostPin(cluster_id, self.host_public_key, former[:_MOST_FORMER])

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
