"""What is kept of what has ended, and for how long (`docs/design/0023-retention.md`)."""

from kohakuriver.host.retention.nodes import NodeParts
from kohakuriver.host.retention.outputs import OutputFolders
from kohakuriver.host.retention.records import Leftovers, RetentionReport
from kohakuriver.host.retention.retention import Retention, RetentionParts
from kohakuriver.host.retention.rules import RetentionRules

__all__ = [
    "Leftovers",
    "NodeParts",
    "OutputFolders",
    "Retention",
    "RetentionParts",
    "RetentionReport",
    "RetentionRules",
]
