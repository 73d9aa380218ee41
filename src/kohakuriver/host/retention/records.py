"""What a look at leftovers finds, or a sweep removed."""

from dataclasses import dataclass, field

from kohakuriver.models.enums import LeftoverKind

ON_HOST = "host"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """So many of one kind in one place. `place`: a node's name, or the host. `size_bytes` None: not measured.

    `kept_days`: what the setting says; 0 where none of it is removed for its age.
    """

    kind: LeftoverKind
    place: str
    count: int
    size_bytes: int | None
    kept_days: int


@dataclass(slots=True)
class RetentionReport:
    """`faults`: (place, sentence) for what could not be looked at or removed."""

    items: list[Leftovers] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
