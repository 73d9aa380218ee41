"""How the application tells the front door that a request has proven its credential."""

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

_KEY = "kohakuriver.front_door"


class Provable(Protocol):
    """A connection, as the application knows it."""

    def prove(self, caller: str) -> None: ...


def attach(scope: MutableMapping[str, Any], connection: Provable) -> None:
    scope[_KEY] = connection


def prove(scope: Mapping[str, Any], caller: str = "") -> None:
    """Say that this request's headers prove who sends it; before its body is read.

    `caller`: a name of it; without one nobody counts what it takes up. Of no effect where the application is
    called without a server.
    """
    connection = scope.get(_KEY)
    if connection is not None:
        connection.prove(caller)
