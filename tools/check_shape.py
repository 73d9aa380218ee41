"""House rules that ruff, mypy and import-linter cannot hold; `make check` runs it over the whole tree.

Prints `path:line: fault` for each fault and ends with 1 when there is one. A line that has to break a rule
carries `# shape: <reason>` (for a function: the line of its `def`; for a file: one of its first five lines).
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tools.shape.figures import figures, functions, length_of, takes_every_failure  # noqa: E402 - found once the path is set
from tools.shape.import_graph import import_circles, import_graph, mutual_arrows  # noqa: E402
from tools.shape.names import lost_names  # noqa: E402
from tools.shape.repeats import repeats  # noqa: E402
from tools.shape.rooms import folder_sizes, small_modules  # noqa: E402
from tools.shape.sources import Fault, Source  # noqa: E402
from tools.shape.tests import private_parts, test_rooms  # noqa: E402
from tools.shape.words import unwanted_words  # noqa: E402

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

# A file with such a name has no subject of its own, so anything can be put into it.
_SUBJECTLESS = re.compile(r"(?:^|[_-])(?:utils?|helpers?|common|managers?|misc)(?:$|[_-])")
_OPEN_WORK = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
_WITH_ISSUE = re.compile(r"#\d+")
# Paths of somebody's own machine: nothing in the repository may depend on where it was written.
_MACHINE_PATH = re.compile(r"(?<![\w.~$}/-])/(?:work|root|Users/\w+|home/\w+)/\w")
# Install files name packages; which server gives them is each machine's own setting.
_SERVER = re.compile(r"\w+://(?!localhost|127\.0\.0\.1|/)")
_STATE_NAME = re.compile(r"(?:^|_)(?:state|status)$")

# Third parties that a room of the pure core may import; a room that is not named here is free.
CORE_IMPORTS: dict[str, frozenset[str]] = {
    # Records that are made again at each step are its structs.
    "models": frozenset({"msgspec"}),
    "scheduling": frozenset({"msgspec"}),
    "config": frozenset({"kohakuengine"}),
    "wire": frozenset({"msgspec", "cryptography"}),
}

# What may be imported below one folder of the host and nowhere else in it: the rest is for any database.
HOST_HOMES: dict[str, str] = {
    "sqlite3": "src/kohakuriver/host/store/sqlite/",
    "sqlalchemy.dialects.sqlite": "src/kohakuriver/host/store/sqlite/",
}

Rule = Callable[[Source], Iterator[Fault]]
TreeRule = Callable[[Source, ast.AST], Iterator[Fault]]


def file_names(source: Source) -> Iterator[Fault]:
    for part in source.path.split("/"):
        if _SUBJECTLESS.search(part.split(".")[0]):
            yield Fault(source.path, 1, f"'{part}' names no subject; name the file for what it is about")


def file_lengths(source: Source) -> Iterator[Fault]:
    if source.path.startswith("src/") and len(source.lines) > MAX_FILE_LINES and not source.is_excused:
        sentence = f"{len(source.lines)} lines; above {MAX_FILE_LINES} a file has more than one subject"
        yield Fault(source.path, MAX_FILE_LINES + 1, sentence)


def open_work(source: Source) -> Iterator[Fault]:
    for number, line in enumerate(source.lines, 1):
        if _OPEN_WORK.search(line) and not _WITH_ISSUE.search(line):
            yield Fault(source.path, number, "open work without the number of its issue")


def machine_paths(source: Source) -> Iterator[Fault]:
    for number, line in enumerate(source.lines, 1):
        if _MACHINE_PATH.search(line) and not source.excused(number):
            yield Fault(source.path, number, "a path of one particular machine")


def servers_in_install_files(source: Source) -> Iterator[Fault]:
    if not source.path.endswith((".lock", ".toml", ".sh", "Makefile")) and source.path != ".ci/run":
        return
    for number, line in enumerate(source.lines, 1):
        if _SERVER.search(line) and not source.excused(number):
            yield Fault(
                source.path, number, "an install file names a server; that is each machine's own setting"
            )


def function_lengths(source: Source, _tree: ast.AST) -> Iterator[Fault]:
    if source.path.startswith("tests/"):
        return
    for function in functions(source):
        length = length_of(function)
        if length > MAX_FUNCTION_LINES and not source.excused(function.lineno):
            sentence = f"{function.name} has {length} lines; at most {MAX_FUNCTION_LINES}"
            yield Fault(source.path, function.lineno, sentence)


def _starts_task(call: ast.AST) -> bool:
    """Whether it is `asyncio.create_task(…)`, `loop.create_task(…)` or an `ensure_future`; no TaskGroup's."""
    if not isinstance(call, ast.Call):
        return False
    if isinstance(call.func, ast.Name):
        return call.func.id in {"create_task", "ensure_future"}
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in {"create_task", "ensure_future"}:
        return False
    return ast.unparse(call.func.value).split(".")[-1].strip("_()").endswith(("asyncio", "loop"))


def _dropped_task(statement: ast.AST, read: set[str]) -> bool:
    if isinstance(statement, ast.Expr):
        return _starts_task(statement.value)
    if isinstance(statement, ast.Assign) and _starts_task(statement.value):
        return all(isinstance(to, ast.Name) and to.id not in read for to in statement.targets)
    return False


def bare_tasks(source: Source, tree: ast.AST) -> Iterator[Fault]:
    """A task that nobody holds can vanish half-way, and its failure is never seen."""
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and _dropped_task(node, read) and not source.excused(node.lineno):
            yield Fault(
                source.path, node.lineno, "a task without an owner; use a TaskGroup, or keep and await it"
            )


def _says_nothing(body: list[ast.stmt]) -> bool:
    only = body[0]
    if len(body) > 1:
        return False
    if isinstance(only, ast.Return):
        return only.value is None or (isinstance(only.value, ast.Constant) and only.value.value is None)
    is_ellipsis = isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)
    return isinstance(only, ast.Pass | ast.Continue) or is_ellipsis


def silent_handlers(source: Source, tree: ast.AST) -> Iterator[Fault]:
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler():
                swallows = takes_every_failure(node.type) and _says_nothing(node.body)
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress")):
                swallows = any(map(takes_every_failure, node.args))
            case _:
                continue
        if swallows:
            yield Fault(source.path, node.lineno, "every failure is swallowed here; log it or narrow it")


def _texts(node: ast.AST) -> set[object]:
    items = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}


def _is_state(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(_STATE_NAME.search(name))


def states_as_strings(source: Source, tree: ast.AST) -> Iterator[Fault]:
    """`task.state == "running"` survives a renamed state and is then never true again."""
    if not source.path.startswith("src/"):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if any(map(_is_state, sides)) and any(map(_texts, sides)) and not source.excused(node.lineno):
            yield Fault(
                source.path, node.lineno, "a state is compared as a string; compare members of its enum"
            )


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each module that is imported, and of what is imported out of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module or ''}.{alias.name}") for alias in node.names)


def core_imports(source: Source, tree: ast.AST) -> Iterator[Fault]:
    """The pure core imports the standard library, our own, and what `CORE_IMPORTS` permits."""
    permitted = CORE_IMPORTS.get(source.room)
    if permitted is None:
        return
    for line, name in _imported(tree):
        party = name.split(".")[0]
        if party not in permitted | sys.stdlib_module_names | {"kohakuriver"}:
            yield Fault(source.path, line, f"{source.room} may not import {party}")


def host_homes(source: Source, tree: ast.AST) -> Iterator[Fault]:
    """What is SQLite's lives in one room of the host, so that another store can take its place."""
    if source.room != "host":
        return
    for line, name in _imported(tree):
        for party, home in HOST_HOMES.items():
            if f"{name}.".startswith(f"{party}.") and not source.path.startswith(home):
                yield Fault(source.path, line, f"{party} is imported in {home} and nowhere else in the host")


RULES: tuple[Rule, ...] = (file_names, file_lengths, open_work, machine_paths, servers_in_install_files)
TREE_RULES: tuple[TreeRule, ...] = (
    function_lengths,
    bare_tasks,
    silent_handlers,
    states_as_strings,
    core_imports,
    host_homes,
    private_parts,
)


def faults_in(source: Source) -> list[Fault]:
    faults = [fault for rule in RULES for fault in rule(source)]
    if source.path.endswith(".py"):
        faults += [fault for rule in TREE_RULES for fault in rule(source, source.tree)]
    return faults


def faults_among(sources: Iterable[Source]) -> list[Fault]:
    """What is wrong with them together."""
    sources = list(sources)
    graph = import_graph(sources)
    path_of = {source.module: source.path for source in sources}
    return [
        *import_circles(graph, path_of),
        *mutual_arrows(graph, path_of),
        *folder_sizes(sources),
        *small_modules(sources, graph),
        *figures(sources),
        *repeats(sources),
        *lost_names(sources),
        *unwanted_words(sources),
        *test_rooms(sources),
    ]


def repository_files(root: Path) -> list[str]:
    """What git knows or would add: neither caches nor environments."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listing = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode()
    return sorted({name for name in listing.split("\0") if name and (root / name).is_file()})


def read_source(root: Path, path: str) -> Source | None:
    """The file as text; None for one that is none (an image, recorded bytes)."""
    try:
        return Source(path, (root / path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return None


def main() -> int:
    sources = [source for path in repository_files(ROOT) if (source := read_source(ROOT, path))]
    faults = [fault for source in sources for fault in faults_in(source)]
    faults += faults_among(sources)
    for fault in faults:
        print(f"{fault.path}:{fault.line}: {fault.sentence}")
    print(f"shape: {len(sources)} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
