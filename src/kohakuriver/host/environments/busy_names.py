"""One operation per environment at a time; a second one is refused at once and told what goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.models.errors import Conflict


class BusyNames:
    """Which environment is being worked on, and how."""

    def __init__(self) -> None:
        self._doing: dict[str, str] = {}

    @contextmanager
    def claim(self, name: str, doing: str) -> Iterator[None]:
        """Hold the name; raises Conflict while somebody else does. `doing` completes "is being …"."""
        if name in self._doing:
            raise Conflict(f"environment {name} is being {self._doing[name]}; wait until that is done")
        self._doing[name] = doing
        try:
            yield
        finally:
            del self._doing[name]
