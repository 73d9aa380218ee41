"""`up` and `down`: a whole cluster on this machine, made of the same two programs that a real one runs.

`up` may be called again at any time: what runs is kept, what is missing is started, and a task is run to show
that it works. `down` ends the two programs; workloads and records stay.
"""

import os
import sys
from pathlib import Path

import click

from kohakuriver.models.errors import KohakuRiverError

_STOP_SECONDS = 30.0
_FIRST_TASK = (
    "sh",
    "-c",
    'echo "Hello from task $KOHAKURIVER_TASK_ID in a container on your cluster"; uname -srm; date -u',
)


def base_folder() -> Path:
    return Path(os.path.expanduser("~")) / ".kohakuriver"


@click.command()
@click.option("--no-task", is_flag=True, help="Do not run a first task.")
def up(no_task: bool) -> int:
    """Start a cluster on this machine, or what is missing of it, and run a task on it.

    Host and runner listen only on 127.0.0.1; their files are in ~/.kohakuriver, where HOST_BIND_IP opens the
    host to other machines.
    """
    from kohakuriver.cli.local.cluster import ClusterStart
    from kohakuriver.cli.local.files import ensure_local_files
    from kohakuriver.cli.tasks.following import follow_to_end
    from kohakuriver.client.connection.local_node import local_node
    from kohakuriver.client.records import Submission

    base = base_folder()
    cluster = ensure_local_files(base)
    for path in cluster.written:
        _tell(f"Wrote {path}")
    for note in cluster.notes:
        _tell(note)
    with ClusterStart(base, cluster, local_node(), _tell) as start:
        start.ensure_running()
        if not no_task:
            start.wait_for_environment()
            _tell(f"First task: {' '.join(_FIRST_TASK[:2])} '…'")
            submission = Submission(command=_FIRST_TASK[0], arguments=list(_FIRST_TASK[1:]), required_cores=1)
            task_id = start.client.tasks.submit(submission).value.task_ids[0]
            sys.stdout.flush()
            status = follow_to_end(start.client, task_id, start.check_daemons)
            if status:
                raise KohakuRiverError(
                    f"the first task ended with status {status}; `kohakuriver task status {task_id}` says "
                    f"more, and so do the logs in {base / 'logs'}"
                )
        start.check_daemons()
    _tell_addresses(cluster.url, base)
    return 0


@click.command()
def down() -> int:
    """End host and runner of this machine; tasks that run go on, and records stay for the next `up`."""
    from kohakuriver.cli.local.cluster import daemons_of, start_lock

    base = base_folder()
    if not base.is_dir():
        _tell("Nothing runs here")
        return 0
    with start_lock(base):
        for daemon in reversed(daemons_of(base)):
            stopped = daemon.stop(_STOP_SECONDS)
            _tell(f"The {daemon.program} has ended" if stopped else f"The {daemon.program} did not run")
    return 0


def _tell(text: str) -> None:
    print(text, flush=True)


def _tell_addresses(url: str, base: Path) -> None:
    _tell(
        f"\nThe cluster runs.\n"
        f"  Overview    {url}/\n"
        f"  API         {url}/docs\n"
        f"  Logs        {base / 'logs'}\n"
        f"Go on with\n"
        f"  kohakuriver run -c 1 -m 256M -- sh -c 'echo hello'\n"
        f"  kohakuriver vps create lab --ssh     (a VPS to live in)\n"
        f"  kohakuriver node list\n"
        f"  kohakuriver down"
    )
