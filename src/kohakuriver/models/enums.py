"""The words of the system as enumerations; their values are what stands on the wire and in the store."""

from enum import IntEnum, StrEnum


class LogLevel(StrEnum):
    """How much the daemons log; `FULL` adds the values of variables to tracebacks."""

    FULL = "full"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class TaskType(StrEnum):
    COMMAND = "command"
    VPS = "vps"


class TaskState(StrEnum):
    """Life of a workload; the permitted steps between states are in `models.transitions`."""

    PENDING_APPROVAL = "pending_approval"
    REJECTED = "rejected"
    PENDING = "pending"
    ASSIGNING = "assigning"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    KILLED_OOM = "killed_oom"
    STOPPED = "stopped"
    LOST = "lost"


class LeftoverKind(StrEnum):
    """What is kept for a while after it was of use, and then removed."""

    OUTPUT = "output"
    TASKS = "tasks"
    EVENTS = "events"
    SNAPSHOTS = "snapshots"
    IMAGES = "images"
    LOCAL_TEMP = "local_temp"


class NodeStatus(StrEnum):
    """What clients see of a node. `pending`: its runner waits for approval."""

    PENDING = "pending"
    ONLINE = "online"
    OFFLINE = "offline"


class EnrolState(StrEnum):
    """How far a runner that asked to join has come."""

    PENDING = "pending"
    APPROVED = "approved"


class OrphanChoice(StrEnum):
    """What becomes of work that a node holds under another node's name."""

    ADOPT = "adopt"
    END = "end"


class OrderKind(StrEnum):
    """What the host can tell a runner to do with one attempt of a task."""

    EXECUTE = "execute"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class SshKeyMode(StrEnum):
    """How SSH into a VPS is set up: not at all, without a password, with given keys, with a new one."""

    DISABLED = "disabled"
    NONE = "none"
    UPLOAD = "upload"
    GENERATE = "generate"


class PullPolicy(StrEnum):
    """Whether a registry is asked for an image: each time, where the node has none of that name, or never."""

    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


class VpsBackend(StrEnum):
    """What a VPS runs in."""

    DOCKER = "docker"
    QEMU = "qemu"


class Role(IntEnum):
    """Ranks of users; a higher rank may do all that a lower one may."""

    ANONY = 0
    VIEWER = 1
    USER = 2
    OPERATOR = 3
    ADMIN = 4


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class Flow(IntEnum):
    """The streams of a process, by the byte that names them in frames."""

    INPUT = 0
    OUTPUT = 1
    ERROR = 2


class FileChange(StrEnum):
    """What happened to a watched file."""

    CREATE = "CREATE"
    MODIFY = "MODIFY"
    DELETE = "DELETE"
    MOVE = "MOVE"
