"""What tests ask of a cluster that is served in the emulated machine."""

from dataclasses import dataclass

from support.emulated.guest import Answer, Guest

HOST_UNIT, RUNNER_UNIT = "kohakuriver-host", "kohakuriver-runner"


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


def main_pid(guest: Guest, unit: str) -> int:
    return int(guest.check("systemctl", "show", "-P", "MainPID", unit))
