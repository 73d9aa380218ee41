"""How much of a daemon somebody can take up who has proven nothing.

Both daemons serve HTTP through these protocols. A connection belongs to a stranger until a request on it has
proven a credential (`prove`), and again after one that has not. Strangers share a bounded number of
connections and of bytes, by address and in all, and must get on; whoever has proven a credential is only
asked not to fall silent.
"""

from kohakuriver.front_door.connections import Connections
from kohakuriver.front_door.http_protocol import GuardedHttpProtocol
from kohakuriver.front_door.limits import ConnectionLimits
from kohakuriver.front_door.proof import prove

__all__ = ["ConnectionLimits", "Connections", "GuardedHttpProtocol", "prove"]
