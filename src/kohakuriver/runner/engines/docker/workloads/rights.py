"""Which capabilities a workload has: those that engines give to every container, less what no workload needs
by itself, and with what was asked for; pure.
"""

from kohakuriver.runner.engines.contract.spec import WorkloadSpec

_GIVEN_TO_ALL = "SYS_NICE"
# With the first a workload could speak for other machines; with the second it could make device nodes where
# users of the node find them.
_WITHHELD = frozenset(("NET_RAW", "MKNOD"))
# Only from command tasks: without it some builds of sshd let nobody into a VPS.
_WITHHELD_FROM_TASKS = _WITHHELD | {"AUDIT_WRITE"}
_OF_ENGINES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
_WITHOUT_POWER_OVER_NETWORKS = frozenset((*_OF_ENGINES, _GIVEN_TO_ALL))


def added_capabilities(spec: WorkloadSpec) -> list[str]:
    return sorted({_GIVEN_TO_ALL, *spec.body.capabilities})


def dropped_capabilities(spec: WorkloadSpec) -> list[str]:
    withheld = _WITHHELD_FROM_TASKS if spec.session is None else _WITHHELD
    return sorted(withheld - set(spec.body.capabilities))


def has_network_rights(spec: WorkloadSpec) -> bool:
    """Whether it can change its network, or is a VPS: nobody else may have its sandbox afterwards."""
    is_tame = _WITHOUT_POWER_OVER_NETWORKS.issuperset(spec.body.capabilities)
    reaches_out = spec.body.privileged or bool(spec.body.options.ways_to_the_node)
    return reaches_out or has_own_sandbox(spec) or not is_tame


def has_own_sandbox(spec: WorkloadSpec) -> bool:
    """Whether its network is made only for it: it has the host name that was asked for."""
    return spec.session is not None or bool(spec.body.options.hostname)
