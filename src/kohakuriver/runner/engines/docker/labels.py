"""Labels on what this engine makes, and by which it is known again."""

import json
from collections.abc import Iterable, Mapping

from kohakuriver.models.enums import TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import (
    LABEL_ATTEMPT,
    LABEL_CLUSTER,
    LABEL_MANAGED,
    LABEL_NODE,
    LABEL_SANDBOX,
    LABEL_SNAPSHOT,
    LABEL_TASK_ID,
    LABEL_TASK_TYPE,
)

# Whether the workload could change its network, or is a VPS, whose network is its own: a sandbox that
# served such a one is never used again.
LABEL_NETWORK_RIGHTS = "kohakuriver.network_rights"
# On a sandbox: which runner's life made it, since names are chosen anew in each.
LABEL_MAKER = "kohakuriver.maker"
# On a sandbox: what it was made by, image and settings; see `sandboxes.body`.
LABEL_FORM = "kohakuriver.sandbox_form"
# On a snapshot: what the VPS's users had changed in files that are mounted into it (`kept_edits`).
LABEL_EDITS = "kohakuriver.edits"
_FOR_VPS = "session"


class Owner:
    """Whose things on an engine are this runner's: those with its node's name that its cluster made.

    `clusters`: ids that its cluster has and had, the present one first. What an earlier version made names no
    cluster and counts as ours. With `take_over`, what stands under another node's name is ours as well.
    """

    def __init__(self, node: str, clusters: Iterable[str] = ()) -> None:
        self.node = node
        self._clusters = tuple(clusters)
        self._names = {node}

    @property
    def cluster(self) -> str:
        """Empty before the runner belongs to one."""
        return self._clusters[0] if self._clusters else ""

    @property
    def labels(self) -> dict[str, str]:
        """On everything that is made."""
        labels = {LABEL_MANAGED: "true", LABEL_NODE: self.node}
        return labels | {LABEL_CLUSTER: self.cluster} if self.cluster else labels

    @property
    def suffix(self) -> str:
        """For names that runners on one engine must not have in common."""
        return f"{self.node}-{self.cluster[:12]}" if self.cluster else self.node

    def take_over(self, names: Iterable[str]) -> None:
        self._names.update(names)

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        return labels is not None and self.is_of_cluster(labels) and labels.get(LABEL_NODE) in self._names

    def is_of_cluster(self, labels: Mapping[str, str]) -> bool:
        """Whether it is our cluster's, on whichever of its nodes."""
        is_managed = labels.get(LABEL_MANAGED) == "true"
        return is_managed and labels.get(LABEL_CLUSTER, "") in ("", *self._clusters)


def workload_labels(
    owner: Owner, task_id: TaskId, attempt: int, task_type: TaskType, *, network_rights: bool
) -> dict[str, str]:
    """A container takes over its image's labels; of those of a snapshot none is to be long."""
    return {
        **owner.labels,
        LABEL_TASK_ID: str(task_id),
        LABEL_ATTEMPT: str(attempt),
        LABEL_TASK_TYPE: task_type.value,
        LABEL_NETWORK_RIGHTS: str(network_rights).lower(),
        LABEL_EDITS: "",
    }


def snapshot_labels(task_id: TaskId, edits: str = "") -> dict[str, str]:
    """An image takes over its container's labels; with these it does not look like a workload."""
    blank = (
        LABEL_MANAGED,
        LABEL_NODE,
        LABEL_CLUSTER,
        LABEL_TASK_ID,
        LABEL_ATTEMPT,
        LABEL_TASK_TYPE,
        LABEL_NETWORK_RIGHTS,
    )
    return {**dict.fromkeys(blank, ""), LABEL_SNAPSHOT: str(task_id), LABEL_EDITS: edits}


def sandbox_labels(owner: Owner, maker: str, *, for_vps: bool = False) -> dict[str, str]:
    return {
        **owner.labels,
        LABEL_MAKER: maker,
        LABEL_SANDBOX: _FOR_VPS if for_vps else "true",
    }


def is_vps(labels: Mapping[str, str]) -> bool:
    return labels.get(LABEL_TASK_TYPE) == TaskType.VPS.value


def is_for_vps(labels: Mapping[str, str]) -> bool:
    """Of a sandbox: whether it was made for a VPS, and so is in no pool."""
    return labels.get(LABEL_SANDBOX) == _FOR_VPS


def managed_filter() -> str:
    """Value of the `filters` parameter that lists all containers of KohakuRiver, whoever made them."""
    return json.dumps({"label": [f"{LABEL_MANAGED}=true"]})
