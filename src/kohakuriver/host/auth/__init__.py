"""Who asks, what they may, and what they have open by it; `may` is the one function that decides."""

from kohakuriver.host.auth.permissions import Action, Actor, may
from kohakuriver.host.auth.rights import Rights
from kohakuriver.host.auth.service import AuthService, NewToken, warn_if_open
from kohakuriver.host.auth.token_uses import KnownToken

__all__ = ["Action", "Actor", "AuthService", "KnownToken", "NewToken", "Rights", "may", "warn_if_open"]
