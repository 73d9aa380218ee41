"""Labels on what this engine makes, and the filters that find it again."""

import json
from collections.abc import Mapping

from kohakuriver.models.enums import TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import (
    LABEL_ATTEMPT,
    LABEL_MANAGED,
    LABEL_NODE,
    LABEL_SANDBOX,
    LABEL_TASK_ID,
    LABEL_TASK_TYPE,
)

# Whether the workload could change its network: a sandbox that served such a one is never used again.
LABEL_NETWORK_RIGHTS = "kohakuriver.network_rights"


def workload_labels(node: str, task_id: TaskId, attempt: int, *, network_rights: bool) -> dict[str, str]:
    return {
        LABEL_MANAGED: "true",
        LABEL_NODE: node,
        LABEL_TASK_ID: str(task_id),
        LABEL_ATTEMPT: str(attempt),
        LABEL_TASK_TYPE: TaskType.COMMAND.value,
        LABEL_NETWORK_RIGHTS: str(network_rights).lower(),
    }


def sandbox_labels(node: str) -> dict[str, str]:
    return {LABEL_MANAGED: "true", LABEL_NODE: node, LABEL_SANDBOX: "true"}


def is_ours(labels: Mapping[str, str] | None, node: str) -> bool:
    return labels is not None and labels.get(LABEL_MANAGED) == "true" and labels.get(LABEL_NODE) == node


def ours_filter(node: str) -> str:
    """Value of the `filters` parameter that lists all containers of this node, sandboxes included."""
    return json.dumps({"label": [f"{LABEL_MANAGED}=true", f"{LABEL_NODE}={node}"]})
