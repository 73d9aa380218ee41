"""Accounts, tokens and roles of the host's users; `may` is the one function that decides."""

from kohakuriver.host.auth.assignments import Assignments
from kohakuriver.host.auth.permissions import Action, Actor, may
from kohakuriver.host.auth.service import AuthService, NewToken, warn_if_open
from kohakuriver.host.auth.token_uses import KnownToken

__all__ = ["Action", "Actor", "Assignments", "AuthService", "KnownToken", "NewToken", "may", "warn_if_open"]
