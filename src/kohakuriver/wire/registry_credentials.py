"""What a runner asks its host for when it pulls: the credential of the cluster for a registry. Sealed.

Rules: a credential is asked for by the pull that needs it, and kept at neither end of the way.
"""

import msgspec

from kohakuriver.wire.bounds import Secret, Text


class RegistryQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """`registry`: of an image that a task names which starts on that node now."""

    registry: Text


class RegistryCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A user of a registry; empty where the cluster has none for it."""

    username: Text = ""
    password: Secret = ""

    def __repr__(self) -> str:
        return f"RegistryCredential({self.username!r}, …)"
