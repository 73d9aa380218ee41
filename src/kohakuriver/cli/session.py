"""Which host a command talks to, with which credential; the client is made when it is first needed.

A token goes only to the host that it belongs to: the administrator's token that a host leaves for its own
machine is used for that port on a loopback address alone, the token of `cli_config.py` for that file's host
alone. `KOHAKURIVER_TOKEN` is the user's word for this call and goes to whatever host the call names.
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
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.config.addresses import HostAddress

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host's URL and the token to use with it."""

    url: str
    token: str | None


class Session:
    """What the global options said; one per call of the command."""

    def __init__(self, host: str | None = None, port: int | None = None) -> None:
        self._host = host
        self._port = port
        self._client: HostClient | None = None

    @property
    def client(self) -> "HostClient":
        if self._client is None:
            from kohakuriver.client.host_client import HostClient

            endpoint = self.endpoint()
            self._client = HostClient(endpoint.url, endpoint.token)
        return self._client

    def endpoint(self) -> Endpoint:
        """Work out host and token; raises click's UsageError for an address that is none."""
        from kohakuriver.config import load_client_config

        config = load_client_config()
        address = _read_address(self._host or os.environ.get("KOHAKURIVER_HOST") or config.host)
        port = self._port or address.port or _port_of_environment("KOHAKURIVER_PORT") or config.port
        url = _url(address, port)
        token = os.environ.get("KOHAKURIVER_TOKEN")
        if not token and config.token and url == config.url:
            token = config.token
        return Endpoint(url, token or token_of_this_machine(address.host, port))

    def ssh_gateway_port(self) -> int | None:
        """What the user says of the port of the host's SSH gateway; None: the host is to be asked."""
        if (said := _port_of_environment("KOHAKURIVER_SSH_PROXY_PORT")) is not None:
            return said
        from kohakuriver.config import ClientConfig, load_client_config

        config = load_client_config()
        usual = config.ssh_proxy_port == ClientConfig().ssh_proxy_port
        return None if usual or self.endpoint().url != config.url else config.ssh_proxy_port

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def pass_session(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a command so that it gets the session as its first argument."""

    def with_session(*args: Any, **kwargs: Any) -> Result:
        return function(click.get_current_context().find_object(Session) or Session(), *args, **kwargs)

    return update_wrapper(with_session, function)


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
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise click.UsageError(f"{variable} is {text[:20]!r}; a port is a number from 1 to 65535")
    return int(text)


def _url(address: "HostAddress", port: int) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.scheme}://{host}:{port}"


def token_of_this_machine(host: str, port: int) -> str | None:
    """Token that a host on this machine left for this user, if that very host is meant."""
    if not _is_loopback(host):
        return None
    path = Path(os.path.expanduser("~")) / ".kohakuriver" / "admin_token.json"
    try:
        document: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # no host was started here by this user, or it is writing the file now
    if not isinstance(document, dict):
        return None
    url, token = document.get("url"), document.get("token")
    if not isinstance(url, str) or not isinstance(token, str):
        return None
    own = _read_address(url)
    return token if _is_loopback(own.host) and own.port == port else None


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
