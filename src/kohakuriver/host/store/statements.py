"""What each database says in its own way. The words stand in the room of the store (`sqlite/dialect.py`)."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Insert
from sqlalchemy.sql.functions import FunctionElement


class Number(BigInteger):
    """The type of a column of whole numbers up to 64 bits, ids among them."""


class Upsert(Insert):
    """Put whole rows into a table: new ones, and those that take the place of the row with their key."""

    inherit_cache = True


class Unindexed(FunctionElement[Any]):
    """A column's value, in a condition for which no index is to be taken."""

    name = "unindexed"
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type
