"""A store over another one, whose writes and reads fail as a test says; all else is the other's."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from kohakuriver.host.store.disk_space import DiskSpace, StoreSize
from kohakuriver.host.store.store import DiskFault, Store

_T = TypeVar("_T")


@dataclass
class Fault:
    """What the next so many calls raise: instead of what they were to do, or (`after`) once that is done."""

    error: BaseException
    times: float = math.inf
    after: bool = False


class FailingStore:
    """A `Store`. Faults come one after the other; none is left after `mend`."""

    def __init__(self, store: Store) -> None:
        self.faults_of_writes: list[Fault] = []
        self.faults_of_reads: list[Fault] = []
        self.write_failed = asyncio.Event()
        self._store = store
        self._write_fault: str | None = None

    def fail_writes(self, error: BaseException, times: float = math.inf, *, after: bool = False) -> None:
        self.faults_of_writes.append(Fault(error, times, after))

    def fail_reads(self, error: BaseException, times: float = math.inf) -> None:
        self.faults_of_reads.append(Fault(error, times))

    def mend(self) -> None:
        self.faults_of_writes.clear()
        self.faults_of_reads.clear()

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def write_fault(self) -> str | None:
        return self._write_fault or self._store.write_fault

    @property
    def is_using_reserve(self) -> bool:
        return self._store.is_using_reserve

    async def write(self, change: Callable[[Connection], _T], *, new_work: bool = False) -> _T:
        fault = _next_of(self.faults_of_writes)
        if fault is None or fault.after:
            result = await self._store.write(change, new_work=new_work)
            self._write_fault = None
        if fault is not None:
            self._write_fault = str(fault.error) if isinstance(fault.error, DiskFault) else None
            self.write_failed.set()
            raise fault.error
        return result

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        if fault := _next_of(self.faults_of_reads):
            raise fault.error
        return await self._store.read(query)

    async def room(self) -> DiskSpace:
        return await self._store.room()

    async def keep_reserve(self, size_bytes: int) -> None:
        await self._store.keep_reserve(size_bytes)

    def size(self) -> StoreSize:
        return self._store.size()

    def close(self) -> None:
        self._store.close()


def _next_of(faults: list[Fault]) -> Fault | None:
    if not faults:
        return None
    fault = faults[0]
    fault.times -= 1
    if fault.times <= 0:
        faults.remove(fault)
    return fault
