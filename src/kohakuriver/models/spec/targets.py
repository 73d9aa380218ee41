"""Targets: `hostname[:numa][::gpu,gpu…]`, for example `n1`, `n1:0`, `n1::0,1`, `n1:1::2`."""

import re
from dataclasses import dataclass

from kohakuriver.models.errors import InvalidInput

_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_TARGET = re.compile(r"(?P<host>[^:]*)(?::(?P<numa>[0-9]{1,4}))?(?:::(?P<gpus>[0-9]{1,4}(?:,[0-9]{1,4})*))?")


@dataclass(frozen=True, slots=True)
class Target:
    """A place that a submission names: a node, optionally one of its NUMA nodes, and GPU indices of it."""

    hostname: str
    numa_node: int | None = None
    gpus: tuple[int, ...] = ()

    def __str__(self) -> str:
        numa = "" if self.numa_node is None else f":{self.numa_node}"
        gpus = "::" + ",".join(map(str, self.gpus)) if self.gpus else ""
        return f"{self.hostname}{numa}{gpus}"


def is_hostname(text: str) -> bool:
    """Tell whether the text may be the name of a node."""
    return _HOSTNAME.fullmatch(text) is not None


def parse_target(text: str) -> Target:
    """Read a target; raises InvalidInput with the form that is expected."""
    match = _TARGET.fullmatch(text)
    if match is None or not is_hostname(match["host"]):
        raise InvalidInput(
            f"target {text[:100]!r} is not of the form hostname[:numa][::gpu,gpu…], "
            "for example n1, n1:0, n1::0,1 or n1:1::2",
            field="targets",
        )
    gpus = tuple(int(gpu) for gpu in match["gpus"].split(",")) if match["gpus"] else ()
    if len(set(gpus)) != len(gpus):
        raise InvalidInput(f"target {text[:100]!r} names a GPU twice", field="targets")
    return Target(match["host"], int(match["numa"]) if match["numa"] else None, gpus)
