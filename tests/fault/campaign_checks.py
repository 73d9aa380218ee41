"""Judges a campaign's record by the promises of the system. Pure; each check yields sentences.

Judged from what the commands themselves wrote wherever that is possible, not from what the cluster says.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from fault.campaign_record import CampaignRecord, SeenTask
from fault.clients import Outcome
from fault.schedule import SHAPES, Part
from fault.workload import END, START, TraceLine, Work, expected_output
from kohakuriver.models.enums import TaskState
from kohakuriver.models.transitions import FINAL

_FINAL = frozenset(state.value for state in FINAL)
Check = Callable[[CampaignRecord], Iterator[str]]


def violations(record: CampaignRecord) -> list[str]:
    """Return a sentence for each broken promise."""
    return [f"{check.__name__}: {sentence}" for check in CHECKS for sentence in check(record)]


def what_was_accepted_is_there(record: CampaignRecord) -> Iterator[str]:
    """No crash forgets a task that was answered 202, and nothing of a refused one is kept."""
    there = {task.task_id for task in record.tasks}
    for task_id, said in record.accepted().items():
        if task_id not in there:
            yield f"task {task_id} ({said.name}) was accepted and is gone"
    names = Counter(task.name for task in record.tasks)
    for said in record.submissions:
        most = 0 if said.outcome is Outcome.REFUSED else 1
        if names[said.name] > most:
            yield f"{said.name} was {said.outcome.value} and is there {names[said.name]} times"


def every_task_ends_as_its_command_did(record: CampaignRecord) -> Iterator[str]:
    works = _works(record)
    for task in record.tasks:
        work = works.get(task.name)
        if task.task_id in record.unfinished or task.status not in _FINAL:
            yield f"{_named(task)} has not ended"
        elif work is not None and (fault := _wrong_end(record, task, work)):
            yield f"{_named(task)} ({work.kind.value}): {fault}"


def _wrong_end(record: CampaignRecord, task: SeenTask, work: Work) -> str | None:
    end = (task.status, task.exit_code)
    if task.status == TaskState.KILLED.value:
        return None if task.task_id in record.kill_asked else "it was killed and nobody asked for it"
    if _is_lost_by_engine(record, task) and not work.retries:
        return None
    wanted = TaskState.FAILED if work.exit_code else TaskState.COMPLETED
    if end == (wanted.value, work.exit_code):
        return None
    return f"exit status {task.exit_code}, not {work.exit_code}: {task.error_message}"


def an_attempt_starts_its_command_at_most_once(record: CampaignRecord) -> Iterator[str]:
    marks = Counter((line.task_id, line.attempt, line.event) for line in record.trace)
    for (task_id, attempt, event), times in marks.items():
        if times > 1:
            yield f"attempt {attempt} of task {task_id} wrote {event} {times} times"
        if event == END and not marks[task_id, attempt, START]:
            yield f"attempt {attempt} of task {task_id} ended and never began"
    yield from (f"the shared file has a line that nobody wrote: {line[:200]!r}" for line in record.odd_trace)


def only_known_tasks_and_attempts_ran(record: CampaignRecord) -> Iterator[str]:
    newest = {task.task_id: task.attempt for task in record.tasks}
    for line in record.trace:
        if line.attempt > newest.get(line.task_id, 0):
            known = newest.get(line.task_id, 0)
            yield f"attempt {line.attempt} of task {line.task_id} ran; the host knows {known}"


def what_ended_by_itself_ran_to_its_end(record: CampaignRecord) -> Iterator[str]:
    """A result belongs to the attempt that it is reported for, which ran on the node that is reported."""
    places = {(line.task_id, line.attempt, line.event): line.node for line in record.trace}
    for task in record.tasks:
        if not _has_result(task) or _is_lost_by_engine(record, task):
            continue
        for event in (START, END):
            place = places.get((task.task_id, task.attempt, event))
            if place is None:
                yield f"{_named(task)} has a result, and its attempt {task.attempt} wrote no {event}"
            elif place not in ("-", task.assigned_node):
                yield f"{_named(task)} is told to have run on {task.assigned_node}; it ran on {place}"


def all_output_is_there_once_and_in_order(record: CampaignRecord) -> Iterator[str]:
    works = _works(record)
    for task in record.tasks:
        work = works.get(task.name)
        if work is None or task.status not in _FINAL:
            continue
        for stream, text, size in (
            ("out", task.stdout, task.stdout_bytes),
            ("err", task.stderr, task.stderr_bytes),
        ):
            wanted = expected_output(work, stream, task.attempt)
            is_whole = _has_result(task) and not _is_lost_by_engine(record, task)
            if text != wanted if is_whole else not wanted.startswith(text):
                yield f"{_named(task)}: its {stream} is not what it wrote: {_difference(text, wanted)}"
            if size is not None and size != len(text.encode()):
                yield f"{_named(task)}: {size} bytes of {stream} were reported, not {len(text.encode())}"


def cores_are_given_out_once(record: CampaignRecord) -> Iterator[str]:
    """By the commands' own marks: a command runs at least from its first mark to its last."""
    works = _works(record)
    cores = {task.task_id: works[task.name].cores for task in record.tasks if task.name in works}
    by_node: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for start, end in _runs(record.trace):
        if start.node != "-":
            by_node[start.node].append((start.at, cores.get(start.task_id, 0), start.task_id))
            by_node[start.node].append((end.at, -cores.get(start.task_id, 0), start.task_id))
    for node, changes in by_node.items():
        taken = 0
        # What ends in the same hundredth of a second as something begins may have ended before.
        for at, change, task_id in sorted(changes, key=lambda entry: entry[:2]):
            taken += change
            if taken > record.cores:
                yield f"{node} of {record.cores} cores ran {taken} cores' work at {at} s when {task_id} began"


def a_final_state_never_changes(record: CampaignRecord) -> Iterator[str]:
    for task in record.tasks:
        final: str | None = None
        for event in task.history:
            if final is not None and event.kind in _STATES:
                yield f"{_named(task)} was {final} and then {event.kind}"
            if event.kind in _FINAL:
                final = event.kind


def attempts_are_numbered_in_a_row(record: CampaignRecord) -> Iterator[str]:
    for task in record.tasks:
        numbers = [event.attempt for event in task.history if event.kind == TaskState.ASSIGNING.value]
        if task.history and numbers != list(range(1, task.attempt + 1)):
            yield f"{_named(task)} is at attempt {task.attempt} and was placed as {numbers}"


def everything_is_given_back(record: CampaignRecord) -> Iterator[str]:
    for place, left in record.leftovers.items():
        yield from (f"{place} still has {each}" for each in left)
    for node, cores in record.busy_cores.items():
        if cores:
            yield f"{cores} cores of {node} are still given out"


def the_cluster_is_whole_again(record: CampaignRecord) -> Iterator[str]:
    yield from record.unhealed


CHECKS: tuple[Check, ...] = (
    what_was_accepted_is_there,
    every_task_ends_as_its_command_did,
    an_attempt_starts_its_command_at_most_once,
    only_known_tasks_and_attempts_ran,
    what_ended_by_itself_ran_to_its_end,
    all_output_is_there_once_and_in_order,
    cores_are_given_out_once,
    a_final_state_never_changes,
    attempts_are_numbered_in_a_row,
    everything_is_given_back,
    the_cluster_is_whole_again,
)

_STATES = frozenset(state.value for state in TaskState)


def _works(record: CampaignRecord) -> dict[str, Work]:
    return {said.name: said.work for said in record.submissions}


def _named(task: SeenTask) -> str:
    return f"task {task.task_id} ({task.name}, {task.status}, attempt {task.attempt})"


def _is_lost_by_engine(record: CampaignRecord, task: SeenTask) -> bool:
    """An engine that goes away at the very moment may lose a command, or how it ended. Then that is said, and
    a task that asked for it is tried again.
    """
    engines = {fault.place for fault in record.schedule if SHAPES[fault.kind].part is Part.ENGINE}
    return (
        task.status == TaskState.FAILED.value
        and task.assigned_node in engines
        and "engine was restarted" in (task.error_message or "")
    )


def _has_result(task: SeenTask) -> bool:
    """Whether its command ended by itself."""
    ended = (TaskState.COMPLETED.value, TaskState.FAILED.value)
    return task.status in ended and task.exit_code is not None


def _runs(trace: tuple[TraceLine, ...]) -> Iterator[tuple[TraceLine, TraceLine]]:
    """Each command from its start to its end, as far as both were written."""
    ends = {(line.task_id, line.attempt): line for line in trace if line.event == END}
    for line in trace:
        if line.event == START and (line.task_id, line.attempt) in ends:
            yield line, ends[line.task_id, line.attempt]


def _difference(text: str, wanted: str) -> str:
    at = next((i for i, pair in enumerate(zip(text, wanted, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(text), len(wanted)) if at is None else at
    return f"{len(text)} characters, {len(wanted)} wanted, the first other at {at}: {text[at : at + 60]!r}"


def summary(record: CampaignRecord, broken: list[str]) -> str:
    """A table of what happened."""
    kinds = Counter(fault.kind.value for fault in record.schedule)
    states = Counter(task.status for task in record.tasks)
    attempts = Counter(task.attempt for task in record.tasks)
    outcomes = Counter(said.outcome.value for said in record.submissions)
    rows = [
        ("seed", str(record.seed)),
        ("submissions", _counted(outcomes)),
        ("tasks by state", _counted(states)),
        ("tasks by attempts", ", ".join(f"{n} with {a}" for a, n in sorted(attempts.items()))),
        ("faults", f"{len(record.schedule)}: {_counted(kinds)}"),
        ("complaints", str(len(record.complaints))),
        ("violations", str(len(broken))),
    ]
    return "\n".join(f"{name:<18}{value}" for name, value in rows)


def _counted(counter: "Counter[str]") -> str:
    return ", ".join(f"{times} {name}" for name, times in sorted(counter.items())) or "none"
