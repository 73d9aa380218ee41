"""Names and ids in paths, as they are described. They are checked by `models`, whose sentences say more."""

from typing import Annotated

from fastapi import Path

TaskIdText = Annotated[
    str,
    Path(
        description="a task's id",
        json_schema_extra={"pattern": "^([1-9][0-9]{0,17}|[1-8][0-9]{18})$"},
    ),
]
EnvironmentName = Annotated[
    str,
    Path(
        description="an environment's name",
        json_schema_extra={"pattern": "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"},
    ),
]
HostnameText = Annotated[
    str,
    Path(
        description="a node's name",
        json_schema_extra={"pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"},
    ),
]
