"""`task logs --since --timestamps --both`: what was written when, in order, and no byte too many."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from kohakuriver.models.enums import Stream
from kohakuriver.models.output.times import VERSION, Span, encode_spans
from support.command_line import CommandLine
from support.stub_host import CUT, Answer, Request, StubHost, task_record

TASK = "310000000000004242"
NOW = datetime.now(UTC).replace(microsecond=0)
"""When this was loaded, which may be an hour before a test runs: what follows differs by days."""
OUT, ERR = Stream.STDOUT, Stream.STDERR

Line = tuple[Stream, timedelta, bytes]
"""Its stream, how long before now it was written, and what."""

LINES: tuple[Line, ...] = (
    (OUT, timedelta(days=30), b"first\n"),
    (ERR, timedelta(days=20), b"warning\n"),
    (OUT, timedelta(days=10), b"second\nthird\n"),
    (ERR, timedelta(days=2), b"error\n"),
    (OUT, timedelta(days=1), b"last\n"),
)


def at(ago: timedelta) -> datetime:
    return NOW - ago


def said(*lines: Line) -> bytes:
    """As it is shown with times."""
    return b"".join(
        f"{at(ago):%Y-%m-%dT%H:%M:%S}.000Z ".encode() + line
        for _, ago, data in lines
        for line in data.splitlines(keepends=True)
    )


def times_of(lines: Iterable[Line]) -> bytes:
    spans = [Span(stream, int(at(ago).timestamp() * 1000), len(data)) for stream, ago, data in lines]
    return VERSION + encode_spans(spans, 0) if spans else b""


class Output:
    """What a host serves of one task: by range, by lines, and cut off after so many bytes each time."""

    def __init__(self, host: StubHost, attempts: dict[int, Iterable[Line]], cut: int | None = None) -> None:
        self.host = host
        self.begins: dict[str, list[int]] = {"stdout": [], "stderr": [], "times": []}
        self._cut = cut
        self.data: dict[tuple[str, int], bytes] = {}
        for attempt, lines in attempts.items():
            kept = tuple(lines)
            for stream in Stream:
                self.data[stream.value, attempt] = b"".join(data for of, _, data in kept if of is stream)
            self.data["times", attempt] = times_of(kept)
        for part in self.begins:
            host.script("GET", f"/api/tasks/{TASK}/{part}", partial(self._serve, part))

    def _serve(self, part: str, request: Request) -> Answer:
        data, begin, end = self.data[part, int(request.query["attempt"])], 0, None
        if "lines" in request.query:
            lines = data.splitlines(keepends=True)
            begin = sum(map(len, lines[: len(lines) - int(request.query["lines"])]))
        elif "range" in request.headers:
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) + 1 if last else None
            if begin >= len(data):
                return Answer({"detail": "nothing there"}, 416)
        sent = data[begin:end]
        if end is None and "lines" not in request.query:
            self.begins[part].append(begin)
        body: list[object] = [sent[:n] for n in (len(sent),)]
        if self._cut is not None and end is None and "lines" not in request.query and len(sent) > self._cut:
            body = [sent[: self._cut], CUT]
        headers = {"Kohakuriver-Offset": str(begin)}
        return Answer(body, 206 if "range" in request.headers else 200, headers)


@pytest.fixture
def ended(host: StubHost) -> Output:
    host.answer("GET", f"/api/status/{TASK}", task_record(TASK))
    return Output(host, {1: LINES})


def test_both_streams_come_in_the_order_in_which_they_were_written(
    command: CommandLine, ended: Output
) -> None:
    done = command.run("task", "logs", "--both", TASK)
    assert (done.stdout, done.returncode) == (b"".join(data for _, _, data in LINES), 0)
    assert command.run("task", "logs", "--both", "-t", TASK).stdout == said(*LINES)


def test_one_stream_has_its_times_too(command: CommandLine, ended: Output) -> None:
    assert command.run("task", "logs", "--timestamps", TASK).stdout == said(LINES[0], LINES[2], LINES[4])
    assert command.run("task", "logs", "-t", "--stderr", TASK).stdout == said(LINES[1], LINES[3])


def test_only_what_was_written_since_is_fetched(command: CommandLine, ended: Output) -> None:
    assert command.run("task", "logs", "--since", "15d", TASK).stdout == b"second\nthird\nlast\n"
    assert ended.begins["stdout"] == [len(b"first\n")]
    since = at(timedelta(days=2)).isoformat()
    assert command.run("task", "logs", "--both", "--since", since, TASK).stdout == b"error\nlast\n"
    assert command.run("task", "logs", "--both", "--since", "1s", TASK).stdout == b""


def test_the_last_lines_are_those_of_both_streams(command: CommandLine, ended: Output) -> None:
    shown = command.run("task", "logs", "--both", "-t", "--tail", "3", TASK).stdout
    assert shown == b"".join(said(*LINES).splitlines(keepends=True)[-3:])
    assert command.run("task", "logs", "-t", "--tail", "1", TASK).stdout == said(LINES[4])
    assert command.run("task", "logs", "--both", "--tail", "0", TASK).stdout == b""
    recent = command.run("task", "logs", "--both", "--tail", "3", "--since", "5d", TASK).stdout
    assert recent == b"error\nlast\n"


def test_what_has_no_time_is_shown_without_one(command: CommandLine, host: StubHost, ended: Output) -> None:
    ended.data["stderr", 1] += b"dying words\n"
    dashed = b"-".ljust(25) + b"dying words\n"
    assert command.run("task", "logs", "--both", "-t", TASK).stdout == said(*LINES) + dashed
    # Of one that runs still it may be what came while this was read.
    host.answer("GET", f"/api/status/{TASK}", task_record(TASK, status="running"))
    assert command.run("task", "logs", "--both", "-t", TASK).stdout == said(*LINES)


@pytest.mark.parametrize("options", [("--since", "1h"), ("-t",), ("--both",), ("-f", "-t")])
def test_output_of_an_earlier_version_says_that_it_has_no_times(
    command: CommandLine, ended: Output, options: tuple[str, ...]
) -> None:
    ended.data["times", 1] = b""
    done = command.run("task", "logs", *options, TASK)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert b"read it without --since, --timestamps and --both" in done.stderr


def test_a_task_that_wrote_nothing_is_no_error(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", f"/api/status/{TASK}", task_record(TASK))
    Output(host, {1: ()})
    done = command.run("task", "logs", "--both", "-t", TASK)
    assert (done.stdout, done.returncode) == (b"", 0)


def test_a_followed_task_goes_on_over_cut_connections_and_attempts(
    command: CommandLine, host: StubHost
) -> None:
    """Each answer breaks off after a few bytes, and the second attempt begins while the first is read."""
    second = ((ERR, timedelta(seconds=9), b"again\n"), (OUT, timedelta(seconds=8), b"done\n"))
    attempts = itertools.chain([1], itertools.repeat(2))
    host.script("GET", f"/api/status/{TASK}", lambda _: Answer(task_record(TASK, attempt=next(attempts))))
    Output(host, {1: LINES, 2: second}, cut=7)
    done = command.run("task", "logs", "-f", "--both", "-t", TASK)
    assert (done.stdout, done.returncode) == (said(*LINES, *second), 0)


def test_wrong_uses_are_told(command: CommandLine) -> None:
    assert command.run("task", "logs", "--both", "--stderr", TASK).returncode == 2
    done = command.run("task", "logs", "--since", "yesterday", TASK)
    assert done.returncode == 2
    assert b"how long ago" in done.stderr
