"""Calls about files in workloads: what is at a path, and trees as tar streams, either way."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import msgspec

from kohakuriver.client.connection.transport import LONG_WORK_SECONDS, Answer, Transport, decode_reply
from kohakuriver.client.errors import error_from_answer
from kohakuriver.client.records import Message, Reply
from kohakuriver.models.errors import Unavailable

_IDLE_SECONDS = 300.0


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file, folder or link, itself and not what it points at."""

    name: str
    path: str
    type: str
    is_dir: bool
    size: int
    mode: str = ""
    uid: int = 0
    gid: int = 0
    link_target: str | None = None


class FilesApi:
    """`/api/fs/{id}/…`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def stat(self, task_id: str, path: str) -> Reply[FileRecord]:
        return self._transport.fetch(FileRecord, "GET", f"{_base(task_id)}/stat", params={"path": path})

    @contextmanager
    def download(self, task_id: str, path: str) -> Iterator[Iterator[bytes]]:
        """Give the pieces of a tar stream; Unavailable while reading if it breaks off before it is whole."""
        from httpcore2 import ConnectError

        params = {"path": path}
        try:
            with self._transport.stream(
                f"{_base(task_id)}/archive", params=params, headers={}, idle_seconds=_IDLE_SECONDS
            ) as answer:
                if answer.status != 200:
                    raise error_from_answer(answer.status, answer.read(), self._transport.url)
                yield self._pieces(answer)
        except ConnectError as error:
            raise self._transport.unreachable(error) from error

    def upload(self, task_id: str, folder: str, content: Iterable[bytes]) -> Reply[Message]:
        """Unpack a tar stream into a folder of the workload; returns once all of it is there."""
        status, data = self._transport.send_stream(
            "PUT",
            f"{_base(task_id)}/archive",
            params={"path": folder},
            content=content,
            media_type="application/x-tar",
            timeout_seconds=LONG_WORK_SECONDS,
        )
        if status != 200:
            raise error_from_answer(status, data, self._transport.url)
        return decode_reply(Message, data)

    def _pieces(self, answer: Answer) -> Iterator[bytes]:
        try:
            yield from answer.pieces()
        except self._transport.failures as error:
            raise Unavailable(
                "the copy broke off before it was whole, and what is here of it is not all; copy it again"
            ) from error


def _base(task_id: str) -> str:
    return f"/api/fs/{quote(task_id, safe='')}"
