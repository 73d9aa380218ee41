"""Figures of the program as a whole, each with its limit."""

import ast
from collections.abc import Iterable, Iterator

from tools.shape.sources import Fault, Source

MAX_P90_FUNCTION_LINES = 20
MAX_BROAD_HANDLERS_PER_1000 = 1.1
_BROAD = frozenset({"Exception", "BaseException"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def figures(sources: Iterable[Source]) -> Iterator[Fault]:
    program = [source for source in sources if source.module]
    lengths = sorted(length_of(function) for source in program for function in functions(source))
    p90 = lengths[len(lengths) * 9 // 10] if lengths else 0
    if p90 > MAX_P90_FUNCTION_LINES:
        sentence = f"nine of ten functions have up to {p90} lines; at most {MAX_P90_FUNCTION_LINES}"
        yield Fault("src/kohakuriver", 1, sentence)
    lines = sum(len(source.lines) for source in program)
    broad = sum(map(_broad_handlers, program))
    if broad * 1000 > MAX_BROAD_HANDLERS_PER_1000 * lines:
        sentence = f"{broad} broad handlers in {lines} lines; at most {MAX_BROAD_HANDLERS_PER_1000} in 1,000"
        yield Fault("src/kohakuriver", 1, sentence)


def functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def length_of(function: Function) -> int:
    """Lines from `def` to the end, the docstring not counted."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length


def _broad_handlers(source: Source) -> int:
    return sum(
        isinstance(node, ast.ExceptHandler) and takes_every_failure(node.type)
        for node in ast.walk(source.tree)
    )


def takes_every_failure(caught: ast.expr | None) -> bool:
    """Whether what an `except` names is all there is, also beside others."""
    if isinstance(caught, ast.Tuple):
        return any(map(takes_every_failure, caught.elts))
    return caught is None or ast.unparse(caught) in _BROAD
