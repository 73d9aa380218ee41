"""What tests ask of a cluster that is served in the emulated machine."""

from dataclasses import dataclass
from typing import Any

from support.emulated.guest import Answer, Guest

HOST_UNIT, RUNNER_UNIT = "kohakuriver-host", "kohakuriver-runner"
RUNNER_SETTINGS = "/root/.kohakuriver/runner_config.py"


@dataclass(frozen=True)
class Up:
    """What the first `kohakuriver up` of the machine said."""

    answer: Answer


def await_node(guest: Guest) -> None:
    """Return when the one node takes work."""

    def takes_work() -> bool:
        listed = guest.try_api("GET", "/api/nodes") or []
        return [(node["status"], node["closed_reason"]) for node in listed] == [("online", "")]

    guest.wait_for(takes_work, "the node to take work", 600)


def container(guest: Guest, task_id: str, kind: str = "task") -> dict[str, Any]:
    """What the engine says of a workload's container."""
    return dict(guest.engine("GET", f"/containers/kohakuriver-{kind}-{task_id}/json"))


def cgroup_of(guest: Guest, task_id: str, kind: str = "task") -> str:
    """The folder of a workload's control group, as its first process is in it."""
    pid = container(guest, task_id, kind)["State"]["Pid"]
    (line,) = guest.read(f"/proc/{pid}/cgroup").splitlines()
    return "/sys/fs/cgroup" + line.removeprefix("0::")


def begun_task(guest: Guest, script: str, **fields: Any) -> str:
    """A task of a shell script that has said its first word."""
    task_id = guest.submit("sh", "-c", script, **fields)
    guest.wait_for(lambda: guest.output(task_id), f"the first output of task {task_id}")
    return task_id


def made_vps(guest: Guest, name: str) -> str:
    """A VPS that runs, without SSH."""
    body = {"name": name, "ssh_key_mode": "disabled", "required_cores": 0}
    task_id = str(guest.api("POST", "/api/vps/create", body)["task_id"])
    guest.await_task(task_id, "running")
    return task_id


def inside(guest: Guest, vps: str, script: str) -> str:
    """What a shell script prints in the VPS."""
    return guest.check("docker", "exec", f"kohakuriver-vps-{vps}", "sh", "-c", script)


def main_pid(guest: Guest, unit: str) -> int:
    return int(guest.check("systemctl", "show", "-P", "MainPID", unit))


def pipe_keepers(guest: Guest) -> list[str]:
    """The process numbers of the pipe keepers that run."""
    return guest.check("pgrep", "-f", "pipe_keeper_process[.]py").split()
