"""JSON documents made from the types that read them, with a few places in which they go as far as JSON can.

A document is drawn as its type wants it, at the ends of its bounds as often as in between; then some of its
places are spoilt: numbers, times, texts, depths and sizes from the lists below, and keys that are missing or
come twice. So most of a document is what its reader expects, and the rest reaches far into it. A new field of
a type is covered at once.
"""

import enum
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

Draw = Callable[..., Any]


class Raw(str):
    """A piece of JSON that stands as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object as it is written, which may have a key twice."""


NUMBERS = [
    *(
        str(sign * ((1 << bits) + step))
        for bits in (31, 32, 53, 63, 64, 100)
        for sign in (1, -1)
        for step in (-1, 0, 1)
    ),
    *(
        "0",
        "-0",
        "-1",
        "0.5",
        "-0.0",
        "1e15",
        "1e308",
        "1e309",
        "-1e999",
        "5e-324",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    *("9" * 400, "1" + "0" * 5000, "1e400000", "0x10", "١٢", "1_000"),
]
TIMES = [
    *(
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999Z",
    ),
    *(
        "9999-12-31T23:59:59-14:00",
        "2016-12-31T23:59:60Z",
        "2026-01-01T00:00:00+23:59",
        "2026-01-01T00:00:00+99:99",
    ),
    *(
        "1969-12-31T23:59:59Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01",
        "24:00:00Z",
        "2026-01-01T24:00:00Z",
        "now",
    ),
]
TEXTS = [
    *(
        r"\u0000",
        r"a\u0000b",
        r"\ud800",
        r"\udfff\ud800",
        r"\u202e\u2066txt",
        r"\uFEFF",
        r"\u001b]8;;x\u0007",
        r"\r\n\r\n",
    ),
    *(
        "",
        " ",
        ".",
        "..",
        "../../etc/passwd",
        "/",
        "-rf",
        "%00",
        "%s%n",
        "${x}",
        "'; drop table tasks; --",
        "null",
    ),
    *(
        "http://n:99999",
        "http://n:0",
        "http://[::1",
        "http://a@b:1/",
        "n" * 253,
        "x" * 5000,
        "x" * (1 << 20),
        "é" * 3000,
    ),
]
DEPTHS = [
    *("[" * n + "]" * n for n in (50, 500, 3000, 20_000)),
    '{"a":' * 20_000 + "1" + "}" * 20_000,  # more than any Python reads: 3.13 some 10,000
    "[" * 100_000,
]
ODD = ["null", "true", "[]", "{}", '""', "0", "[[]]", '{"":{}}', '{"type":"x","type":"y"}', "[null]"]

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T")

extremes = st.one_of(
    st.sampled_from(NUMBERS).map(Raw),
    st.sampled_from(TIMES).map(lambda text: Raw(json.dumps(text))),
    st.sampled_from(TEXTS).map(lambda text: Raw(f'"{text}"')),
    st.sampled_from(DEPTHS).map(Raw),
    st.sampled_from(ODD).map(Raw),
)


def written(document: Any) -> bytes:
    """The document as bytes, whatever stands in it."""
    return _text(document).encode("utf-8", "surrogatepass")


def _text(part: Any) -> str:
    if isinstance(part, Raw):
        return part
    if isinstance(part, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{_text(value)}" for key, value in part) + "}"
    if isinstance(part, list):
        return "[" + ",".join(map(_text, part)) + "]"
    return json.dumps(part)


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Documents that a msgspec reader of this type takes, as far as types can say."""
    return _of(inspect.type_info(kind))


@st.composite
def hostile(draw: Draw, sound: st.SearchStrategy[Any], fixed: Mapping[str, Any] | None = None) -> bytes:
    """A sound document with up to four places spoilt. `fixed`: what some fields mostly are (or draw from)."""
    document = draw(sound)
    for part in document if type(document) is list else [document]:
        if isinstance(part, Pairs) and fixed and draw(st.integers(0, 7)):
            wanted = [
                (key, draw(value) if isinstance(value, st.SearchStrategy) else value)
                for key, value in fixed.items()
            ]
            part[:] = [*((key, value) for key, value in part if key not in fixed), *wanted]
    for _ in range(draw(st.integers(0, 4))):
        document = _spoil(draw, document)
    return written(document)


@st.composite
def one_spoilt(draw: Draw, kind: type[msgspec.Struct], sound: Mapping[str, Any]) -> bytes:
    """A sound message but for one of its fields, so that nothing else keeps its reader from acting on it."""
    fields = inspect.type_info(kind).fields  # type: ignore[attr-defined]  # as a struct has them
    field = draw(st.sampled_from(fields))
    usual = draw(_of(field.type).filter(lambda value: value is not None))
    others = [(key, value) for key, value in sound.items() if key != field.encode_name]
    return written(Pairs([*others, (field.encode_name, _spoilt(draw, usual))]))


def _spoilt(draw: Draw, value: Any) -> Any:
    """Mostly of the kind that stood there, so that it is more than a wrong type."""
    if not draw(st.integers(0, 3)):
        return draw(extremes)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Raw(draw(st.sampled_from(NUMBERS)))
    if isinstance(value, str) and not isinstance(value, Raw):
        if _TIME.match(value):
            return Raw(json.dumps(draw(st.sampled_from(TIMES))))
        return Raw('"' + draw(st.sampled_from(TEXTS)) + '"')
    return draw(extremes)


def _spoil(draw: Draw, document: Any) -> Any:
    """Go down to some place, and put something else there."""
    if not isinstance(document, list) or not document:
        return _spoilt(draw, document)
    if not draw(st.integers(0, 15)):
        return draw(extremes)
    place = draw(st.integers(0, len(document) - 1))
    if not isinstance(document, Pairs):
        how = draw(st.integers(0, 9))
        if how == 0:
            inner = ",".join(map(_text, document))
            times = min(draw(st.sampled_from([2, 200, 3000])), max((1 << 18) // (len(inner) + 1), 2))
            return Raw("[" + ",".join([inner] * times) + "]")
        return [*document[:place], _spoil(draw, document[place]), *document[place + 1 :]]
    key, value = document[place]
    how = draw(st.integers(0, 9))
    if how == 0:
        return Pairs(document[:place] + document[place + 1 :])
    if how == 1:
        return Pairs([*document, (key, draw(extremes))])
    if how == 2:
        return Pairs([(draw(st.sampled_from(["", "\0", "x" * 5000, "__class__", key])), value), *document])
    return Pairs([*document[:place], (key, _spoil(draw, value)), *document[place + 1 :]])


def _pairs(mapping: Mapping[str, Any]) -> Pairs:
    return Pairs(mapping.items())


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(_pairs)
    ),
    max_leaves=6,
)
_MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC)).map(
    datetime.isoformat
)


def _of(info: Any) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0912 - one line for each kind of type
    match info:
        case inspect.Metadata():
            return _of(info.type)
        case inspect.IntType():
            return _within(info.ge, info.le)
        case inspect.FloatType():
            low, high = info.ge or -1e9, info.le or 1e9
            return st.sampled_from([low, high]) | st.floats(low, high, allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            longest = info.max_length or 40
            return st.text(max_size=min(longest, 20)) | st.just("x" * longest)
        case inspect.BytesType():
            return st.binary(max_size=20).map(lambda data: b64encode(data).decode())
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.DateTimeType():
            return _MOMENTS
        case inspect.EnumType():
            return st.sampled_from([member.value for member in info.cls])
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.ListType() | inspect.VarTupleType():
            return st.lists(_of(info.item_type), max_size=3)
        case inspect.TupleType():
            return st.tuples(*map(_of, info.item_types)).map(list)
        case inspect.DictType():
            return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=3).map(_pairs)
        case inspect.UnionType():
            return st.one_of([_of(each) for each in info.types])
        case inspect.StructType() | inspect.DataclassType():
            return _object(info)
        case inspect.AnyType():
            return _ANYTHING
    raise TypeError(f"no documents can be made of {info}")


def _within(low: int | None, high: int | None) -> st.SearchStrategy[int]:
    low, high = -(1 << 63) if low is None else low, (1 << 63) - 1 if high is None else high
    ends = [low, high, *(near for near in (0, 1, 2) if low <= near <= high)]
    return st.sampled_from(ends) | st.integers(low, high)


@st.composite
def _object(draw: Draw, info: inspect.StructType | inspect.DataclassType) -> Pairs:
    tag: list[tuple[str, Any]] = []
    if isinstance(info, inspect.StructType) and info.tag_field:
        tag = [(info.tag_field, info.tag)]
    chosen = [field for field in info.fields if field.required or draw(st.booleans())]
    return Pairs([*tag, *((field.encode_name, draw(_of(field.type))) for field in chosen)])


def of_schema(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Documents that fit a JSON schema, as pydantic writes them."""
    root = schema if root is None else root
    if "$ref" in schema:
        return st.deferred(lambda: of_schema(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return st.one_of([of_schema(each, root) for each in schema[union]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    simple: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=20) | st.just("x" * schema.get("maxLength", 100)),
        "integer": _within(schema.get("minimum", -5), schema.get("maximum", 1 << 20)),
        "number": st.floats(0, 1000),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    kind = schema.get("type")
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), root), max_size=3)
    if kind == "object":
        return _fields(schema, root)
    return simple.get(str(kind), _ANYTHING)


@st.composite
def _fields(draw: Draw, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Pairs:
    named = schema.get("properties", {})
    chosen = [key for key in named if key in schema.get("required", ()) or draw(st.booleans())]
    others = schema.get("additionalProperties")
    free = (
        draw(st.dictionaries(st.text(max_size=8), of_schema(others, root), max_size=2))
        if isinstance(others, dict)
        else {}
    )
    return Pairs([*((key, draw(of_schema(named[key], root))) for key in chosen), *free.items()])


def structs_of(module: Any) -> list[type[msgspec.Struct]]:
    """All messages that a module defines."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and not issubclass(value, enum.Enum)
    ]
    return [
        each
        for each in found
        if issubclass(each, msgspec.Struct) and each.__module__ == module.__name__ and each.__struct_fields__
    ]
