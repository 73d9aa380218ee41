"""How many modules a folder holds, and how little a module may be about: nobody finds one among forty, and
nobody looks for one that is a page of its only importer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from tools.shape.import_graph import Graph
from tools.shape.sources import Fault, Source

MAX_MODULES = 15
MIN_LINES = 40


def folder_sizes(sources: Iterable[Source]) -> Iterator[Fault]:
    """Migrations do not count: their number grows with time, and they are told apart by it."""
    modules = [
        source.path.rpartition("/")[0] for source in sources if source.module and not source.is_package
    ]
    for folder, count in sorted(Counter(modules).items()):
        if count > MAX_MODULES and not folder.endswith("/migrations/versions"):
            sentence = f"{count} modules in one folder; above {MAX_MODULES} they are grouped by subject"
            yield Fault(folder, 1, sentence)


def small_modules(sources: Iterable[Source], graph: Graph) -> Iterator[Fault]:
    importers = defaultdict(list)
    for module, imports in graph.items():
        for imported in imports:
            importers[imported].append(module)
    for source in sources:
        if not source.module or source.is_package or source.is_excused:
            continue
        if len(source.lines) < MIN_LINES and len(importers[source.module]) == 1:
            only = importers[source.module][0]
            sentence = f"{len(source.lines)} lines that only {only} imports; merge them, or say why not"
            yield Fault(source.path, 1, sentence)
