"""The settings of the command line; environment variables and options win over them."""

from dataclasses import dataclass

from kohakuriver.config import rules
from kohakuriver.config.addresses import parse_host_address
from kohakuriver.config.settings import setting

_HOST = "Host"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Where the command line finds its host."""

    host: str = setting("localhost", _HOST, "Address of the host", rules.HOST_OR_URL)
    port: int = setting(8000, _HOST, "Port of the host's API", rules.PORT)
    ssh_proxy_port: int = setting(8002, _HOST, "Port of the host's SSH gateway", rules.PORT)
    token: str = setting("", _HOST, "Token of the user", rules.SECRET_OR_EMPTY, secret=True)

    host_fingerprint: str = setting(
        "",
        _HOST,
        'Fingerprint of the host\'s key ("": the one of the first contact)',
        rules.FINGERPRINT_OR_EMPTY,
    )

    @property
    def url(self) -> str:
        """Where the host's API is; a port in HOST wins over PORT."""
        return parse_host_address(self.host).url(self.port)
