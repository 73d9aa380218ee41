"""The stream of tasks that a campaign runs: what each does, writes and ends with. Pure.

Every command adds one line to a shared file when it begins and one when it ends by itself (`TraceLine`), so
that what really ran can be compared with what the cluster says of it. The lines are appended by one write
each, which puts them whole behind one another however many write at once. Times in them are the machine's
uptime: no clock that a test moves.
"""

import random
from dataclasses import asdict, dataclass
from enum import StrEnum

START, END = "start", "end"
COUNTER_PAUSE_SECONDS = 0.1


class WorkKind(StrEnum):
    """What a task does. `LONG` counts for so long that a node that is cut off is given up meanwhile; `KILLED`
    for so long that its client kills it before it ends.
    """

    QUICK = "quick"
    COUNTER = "counter"
    LONG = "long"
    FAILING = "failing"
    KILLED = "killed"


_MIX = (
    (WorkKind.QUICK, 5),
    (WorkKind.COUNTER, 6),
    (WorkKind.LONG, 1),
    (WorkKind.FAILING, 2),
    (WorkKind.KILLED, 2),
)


_LINES = {
    WorkKind.QUICK: (1, 1),
    WorkKind.COUNTER: (15, 50),
    WorkKind.LONG: (80, 140),
    WorkKind.FAILING: (3, 20),
    WorkKind.KILLED: (250, 250),
}
"""The least and the most lines of each kind."""


@dataclass(frozen=True, slots=True)
class Work:
    """One task to be submitted, `at` seconds after the start of the campaign.

    `lines` go to each stream. `kill_after`: seconds after its submission at which its client kills it.
    `environment` None: the default one.
    """

    name: str
    kind: WorkKind
    lines: int
    at: float = 0.0
    exit_code: int = 0
    cores: int = 1
    target: str | None = None
    retries: int = 0
    kill_after: float | None = None
    environment: str | None = None

    def row(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of the shared file: an attempt began or ended on a node, `at` seconds of uptime."""

    task_id: str
    attempt: int
    event: str
    node: str
    at: float


@dataclass(frozen=True, slots=True)
class Stream:
    """How many tasks come, evenly over so many seconds, for which nodes, and how many cores those have."""

    count: int
    seconds: float
    nodes: tuple[str, ...]
    cores: int


def make_works(seed: int, stream: Stream) -> tuple[Work, ...]:
    """Return tasks of mixed kinds in the order of their times; the same arguments give the same tasks."""
    dice = random.Random(f"works {seed}")
    kinds, weights = [kind for kind, _ in _MIX], [weight for _, weight in _MIX]
    times = sorted(round(dice.uniform(0, stream.seconds), 2) for _ in range(stream.count))
    return tuple(
        _work(dice, f"w{seed}-{number}", dice.choices(kinds, weights)[0], (at, stream))
        for number, at in enumerate(times)
    )


def _work(dice: random.Random, name: str, kind: WorkKind, frame: tuple[float, Stream]) -> Work:
    at, stream = frame
    least, most = _LINES[kind]
    return Work(
        name=name,
        kind=kind,
        lines=dice.randint(least, most),
        at=at,
        exit_code=dice.choice((1, 3, 137)) if kind is WorkKind.FAILING else 0,
        cores=dice.choices((0, 1, stream.cores), (3, 5, 2))[0],
        target=dice.choice(stream.nodes) if dice.random() < 0.3 else None,
        retries=dice.choice((0, 0, 3)),
        kill_after=round(dice.uniform(0.0, 8.0), 2) if kind is WorkKind.KILLED else None,
    )


def submission(work: Work, trace_path: str) -> dict[str, object]:
    """The body of `POST /api/submit`. `trace_path`: the shared file as containers see it."""
    pause = 0 if work.kind is WorkKind.QUICK else COUNTER_PAUSE_SECONDS
    body: dict[str, object] = {
        "task_type": "command",
        "name": work.name,
        "command": "sh",
        "arguments": ["-c", _SCRIPT, "sh", trace_path, str(work.lines), str(pause), str(work.exit_code)],
        "required_cores": work.cores,
        "retries": work.retries,
    }
    chosen = {"container_name": work.environment} if work.environment else {}
    return body | chosen | ({"targets": [work.target]} if work.target else {})


# `mark` is one printf, so one write; /proc/uptime is the machine's, whatever clocks say. Signals end the
# command at once (PID 1 of a container ignores those that it does not handle). A kill ends `sleep` as well,
# and the shell would say so in the task's output.
_SCRIPT = """
trap 'exit 143' TERM
mark() { read -r up _ < /proc/uptime
  printf '%s %s %s %s %s\\n' "$KOHAKURIVER_TASK_ID" "$KOHAKURIVER_ATTEMPT" "$1" "$NODE" "$up" >> "$TRACE"; }
TRACE=$1;
read -r NODE < /local_temp/node-name || NODE=-
mark start
i=0
while [ $i -lt "$2" ]; do
  i=$((i+1))
  echo "out $KOHAKURIVER_ATTEMPT $i"
  echo "err $KOHAKURIVER_ATTEMPT $i" >&2
  { sleep "$3"; } 2> /dev/null
done
mark end
exit "$4"
"""


def expected_output(work: Work, stream: str, attempt: int) -> str:
    """All that an attempt which ends by itself writes to `out` or `err`."""
    return "".join(f"{stream} {attempt} {number}\n" for number in range(1, work.lines + 1))


def parse_trace(text: str) -> tuple[list[TraceLine], list[str]]:
    """Return the lines, and those that are no such lines (torn or foreign)."""
    lines: list[TraceLine] = []
    odd: list[str] = []
    for raw in text.splitlines():
        fields = raw.split(" ")
        if len(fields) == 5 and fields[2] in (START, END):
            lines.append(TraceLine(fields[0], int(fields[1]), fields[2], fields[3], float(fields[4])))
        else:
            odd.append(raw)
    return lines, odd
