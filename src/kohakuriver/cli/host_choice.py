"""Which host a command talks to, with which credential; the client is made when it is first needed.

A token goes only to the host that it belongs to: the administrator's token that a host leaves for its own
machine is used only for that port on a loopback address, the token of `cli_config.py` only for that file's
host, and one that `auth login` kept only for its own URL. `KOHAKURIVER_TOKEN` is the user's word for this
call and goes to whatever host the call names. In every case the host must prove first that it has the key of
the fingerprint that is known (`client.connection.host_trust`).
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kohakuriver.client.connection.host_trust import HostAccess, Trust
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.config.addresses import HostAddress

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LocalHost:
    """What a host on this machine left for its user in `admin_token.json`; `token` None: it asks for none."""

    file: Path
    url: str
    token: str | None
    fingerprint: str | None


class HostChoice:
    """What the global options said; one per call of the command.

    `fingerprint`: of the host's key. `first_contact` False: a host that is not known yet gets no token.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        fingerprint: str | None = None,
        *,
        first_contact: bool = True,
    ) -> None:
        self._host = host
        self._port = port
        self._fingerprint = fingerprint
        self._first_contact = first_contact
        self.output_format = "table"
        """What commands that print records do without `-o`."""
        self.proxy_port: int | None = None
        """Port of the host's SSH gateway, where the command says it."""
        self._client: HostClient | None = None

    @property
    def client(self) -> "HostClient":
        if self._client is None:
            from kohakuriver.client.host_client import HostClient

            self._client = HostClient(self.access())
        return self._client

    def said_fingerprint(self) -> str | None:
        """The fingerprint that this call is told, by option or environment."""
        return self._fingerprint or os.environ.get("KOHAKURIVER_HOST_FINGERPRINT") or None

    def token_of_environment(self) -> str | None:
        return os.environ.get("KOHAKURIVER_TOKEN", "").strip() or None

    def access(self) -> "HostAccess":
        """Work out host, token and what the host must prove; raises click's UsageError for a bad address.

        Raises Denied where the token of this machine would go to a host that cannot be told from others.
        """
        from kohakuriver.cli.kept_tokens import kept_token
        from kohakuriver.client.connection.host_trust import HostAccess
        from kohakuriver.config import load_client_config

        config = load_client_config()
        address = _read_address(self._host or os.environ.get("KOHAKURIVER_HOST") or config.host)
        port = self._port or address.port or _port_of_environment("KOHAKURIVER_PORT") or config.port
        url = _url(address, port)
        local = host_of_this_machine(address.host, port)
        own = url == config.url
        token = self.token_of_environment() or (config.token if own else None)
        filed = config.host_fingerprint if own else ""
        if local is not None and address.scheme == "http":
            # Its own address, and no other of this machine: somebody else could listen there.
            url = local.url
        token = token or kept_token(url) or (local.token if local and url == local.url else None)
        return HostAccess(url, token or None, self._trust(filed, local, bool(token)))

    def _trust(self, filed: str, local: LocalHost | None, has_token: bool) -> "Trust":
        from kohakuriver.client.connection.host_trust import FirstContact, KnownHost, tell_on_standard_error
        from kohakuriver.models.errors import Denied
        from kohakuriver.models.names import is_fingerprint

        if said := self.said_fingerprint():
            if not is_fingerprint(said):
                raise click.UsageError(
                    "what --host-fingerprint or KOHAKURIVER_HOST_FINGERPRINT says is no fingerprint of a "
                    "host (SHA256:…); `kohakuriver host fingerprint` on the host's machine prints its own"
                )
            return KnownHost(said, "this call (--host-fingerprint or KOHAKURIVER_HOST_FINGERPRINT)")
        if filed:
            return KnownHost(filed, "HOST_FINGERPRINT in cli_config.py")
        if local is not None and local.fingerprint is not None:
            return KnownHost(local.fingerprint, str(local.file))
        if local is not None and has_token:
            raise Denied(
                f"{local.file} was written by a host of an older version and does not say by which key the "
                "host is known, so no token is sent: start the host with this version, or give its "
                "fingerprint as KOHAKURIVER_HOST_FINGERPRINT"
            )
        return FirstContact(tell=tell_on_standard_error if self._first_contact else None)

    def ssh_gateway_port(self) -> int | None:
        """What the user says of the port of the host's SSH gateway; None: the host is to be asked."""
        if self.proxy_port is not None:
            return self.proxy_port
        if (said := _port_of_environment("KOHAKURIVER_SSH_PROXY_PORT")) is not None:
            return said
        from kohakuriver.config import ClientConfig, load_client_config

        config = load_client_config()
        usual = config.ssh_proxy_port == ClientConfig().ssh_proxy_port
        return None if usual or self.access().url != config.url else config.ssh_proxy_port

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def pass_host(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a command so that it gets the chosen host as its first argument."""

    def with_host(*args: Any, **kwargs: Any) -> Result:
        return function(click.get_current_context().find_object(HostChoice) or HostChoice(), *args, **kwargs)

    return update_wrapper(with_host, function)


def _read_address(text: str) -> "HostAddress":
    from kohakuriver.config.addresses import parse_host_address

    try:
        return parse_host_address(text.strip("[]") if "://" not in text else text)
    except ValueError as error:
        raise click.UsageError(f"{text[:100]!r} is not a host: {error}") from error


def _port_of_environment(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    from kohakuriver.models.numbers import port_number

    port = port_number(text)
    if port is None:
        raise click.UsageError(f"{variable} is {text[:20]!r}; a port is a number from 1 to 65535")
    return port


def _url(address: "HostAddress", port: int) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.scheme}://{host}:{port}"


def host_of_this_machine(host: str, port: int) -> LocalHost | None:
    """The host that was started here by this user, if that very host is meant."""
    from kohakuriver.models.names import is_fingerprint

    if not is_loopback(host):
        return None
    path = Path(os.path.expanduser("~")) / ".kohakuriver" / "admin_token.json"
    try:
        document: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # no host was started here by this user, or it is writing the file now
    if not isinstance(document, dict):
        return None
    url, token, fingerprint = (document.get(name) for name in ("url", "token", "fingerprint"))
    if not isinstance(url, str) or not isinstance(token, str | None):
        return None
    own = _read_address(url)
    if not is_loopback(own.host) or own.port != port or own.scheme != "http":
        return None
    known = isinstance(fingerprint, str) and is_fingerprint(fingerprint)
    return LocalHost(path, url, token or None, fingerprint if known else None)


def is_loopback(host: str) -> bool:
    """Tell whether it is an address of this machine that no other one reaches."""
    from ipaddress import ip_address

    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
