"""What `forward` shows: addresses on standard output, all else on standard error."""

from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.console.progress import StatusLine
from kohakuriver.cli.console.sizes import size_text
from kohakuriver.client.streams.forward import ForwardedPort, ForwardNews, Transfer
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.repeated_news import RepeatedNews


class Shown(ForwardNews):
    """`transfer`: also how much was moved, on a terminal while it goes on and everywhere at the end."""

    def __init__(self, *, transfer: bool) -> None:
        self._shows_transfer = transfer
        self._line = StatusLine()
        self._is_ready = False
        self._refusals = RepeatedNews()

    def ready(self, ports: list[ForwardedPort]) -> None:
        self._is_ready = True
        for port in ports:
            print(f"{_address(port)} -> {port.port}/{port.transport.name.lower()}", flush=True)

    def refused(self, sentence: str) -> None:
        if self._refusals.due(sentence):
            self._line.clear()
            complain(sentence)

    def lost(self, reason: KohakuRiverError) -> None:
        self._line.clear()
        complain(f"{reason}; trying again, Ctrl-C gives up")

    def again(self) -> None:
        complain("connected again")

    def moved(self, transfer: Transfer) -> None:
        if self._shows_transfer:
            self._line.show(f"{_amounts(transfer)}, {transfer.open} open")

    def end(self, transfer: Transfer) -> None:
        self._line.clear()
        if self._shows_transfer and self._is_ready:
            complain(_amounts(transfer))


def _address(port: ForwardedPort) -> str:
    host = f"[{port.local_host}]" if ":" in port.local_host else port.local_host
    return f"{host}:{port.local_port}"


def _amounts(transfer: Transfer) -> str:
    return f"{size_text(transfer.sent_bytes)} sent, {size_text(transfer.received_bytes)} received"
