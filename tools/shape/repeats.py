"""How many lines stand in more than one place. Six that follow one another are no accident: where the logic
really is the same, it wants one home.

Blank lines, comments, imports and lone brackets are passed over, and white space is folded.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tools.shape.sources import Fault, Source

MAX_PERCENT = 1.0
RUN_LINES = 6
_FOLDERS = ("src/", "tests/")


def repeats(sources: Iterable[Source]) -> Iterator[Fault]:
    """Of the program and of its tests, each by itself, if too much of it is said twice."""
    sources = [source for source in sources if source.path.endswith(".py")]
    for folder in _FOLDERS:
        files = [source for source in sources if source.path.startswith(folder)]
        repeated = sorted(repeated_lines(files))
        total = sum(len(source.lines) for source in files)
        if len(repeated) * 100 > MAX_PERCENT * total:
            path, line = repeated[0]
            share = f"{len(repeated)} of the {total} lines of {folder} stand in more than one place"
            yield Fault(path, line, f"{share}, the first here; at most {MAX_PERCENT:g} %")


def repeated_lines(files: Iterable[Source]) -> set[tuple[str, int]]:
    """Give path and number of each line that is in a run of `RUN_LINES` which also stands elsewhere."""
    runs = defaultdict(list)
    for source in files:
        lines = list(_counted(source))
        for start in range(len(lines) - RUN_LINES + 1):
            run = lines[start : start + RUN_LINES]
            runs[tuple(text for _, text in run)].append([(source.path, number) for number, _ in run])
    return {line for places in runs.values() if len(places) > 1 for place in places for line in place}


def _counted(source: Source) -> Iterator[tuple[int, str]]:
    in_import = False
    for number, line in enumerate(source.lines, 1):
        text = " ".join(line.split())
        begins = text.startswith(("import ", "from "))
        if not in_import and not begins and not text.startswith("#") and any(map(str.isalnum, text)):
            yield number, text
        in_import = (begins and text.endswith("(")) or (in_import and ")" not in text)
