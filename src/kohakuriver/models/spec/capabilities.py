"""Linux capabilities (capabilities(7)) that a workload may be given beyond those that all have.

Named without `CAP_`, in capitals. Which of them all workloads have is the engine's business.
"""

from collections.abc import Iterable

from kohakuriver.models.errors import InvalidInput

CAPABILITIES = frozenset(
    (
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    )
)


def check_capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Return them in the form above, sorted, each once; raises InvalidInput for one that there is not."""
    found = set()
    for name in names:
        known = name.upper().removeprefix("CAP_")
        if known not in CAPABILITIES:
            raise InvalidInput(
                f"{name[:40]!r} is no capability; they are named as in capabilities(7), such as NET_RAW",
                field="capabilities",
            )
        found.add(known)
    return tuple(sorted(found))
