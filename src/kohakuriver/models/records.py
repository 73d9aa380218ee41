"""A new record from another one: `dataclasses.replace` for what happens at each step of each task."""

from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["changed"]

_Record = TypeVar("_Record")

if TYPE_CHECKING:
    # To the type checker it is that function, whose fields it knows by name and type.
    from dataclasses import replace as changed
else:

    def changed(record: _Record, **changes: Any) -> _Record:
        """Return the record with some fields changed; raises TypeError for a field that it does not have.

        For dataclasses whose fields are all that they are made of: neither `__init__` nor `__post_init__`
        runs, which makes it more than twice as fast as `dataclasses.replace` on a frozen one.
        """
        made = object.__new__(type(record))
        put = object.__setattr__
        left = len(changes)
        for name in record.__dataclass_fields__:
            if name in changes:
                put(made, name, changes[name])
                left -= 1
            else:
                put(made, name, getattr(record, name))
        if left:
            unknown = ", ".join(sorted(set(changes) - set(record.__dataclass_fields__)))
            raise TypeError(f"{type(record).__name__} has no field {unknown}")
        return made
