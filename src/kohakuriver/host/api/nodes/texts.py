"""The list of nodes as JSON, of which only those are encoded anew that have changed."""

from collections.abc import Iterable

import msgspec

from kohakuriver.host.api.records import NodeRecord, node_record
from kohakuriver.host.control import NodeSnapshot

_encode = msgspec.json.Encoder().encode


class NodeTexts:
    """Keeps each node's text for as long as its snapshot is the same object."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[NodeSnapshot, bytes]] = {}

    def render(self, nodes: Iterable[NodeSnapshot], waiting: Iterable[NodeRecord]) -> bytes:
        """Return the whole list: the nodes, then the runners that wait for approval."""
        before, self._texts = self._texts, {}
        for node in nodes:
            name = node.row.hostname
            kept = before.get(name)
            if kept is None or kept[0] is not node:
                kept = node, _encode(node_record(node))
            self._texts[name] = kept
        texts = [text for _, text in self._texts.values()] + [_encode(record) for record in waiting]
        return b"[" + b",".join(texts) + b"]"
