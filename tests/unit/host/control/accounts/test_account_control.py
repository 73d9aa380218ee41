"""Users, tokens and assignments change as everything else does: checked in a turn, counted once committed."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kohakuriver.host.auth import Rights
from kohakuriver.host.control.accounts.account_changes import MAX_ASSIGNMENTS, MAX_TOKENS_PER_USER
from kohakuriver.host.store.records import TokenRow
from kohakuriver.host.store.store import DiskFault
from kohakuriver.models.enums import Role, TaskState, TaskType
from kohakuriver.models.errors import Conflict, KohakuRiverError, NotFound, Unauthenticated, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.models.vps import VpsSpec
from support.host.control import Room, control_room

pytestmark = pytest.mark.anyio
ALL = None


def token(name: str, parent: str | None = None, user: str = "ada") -> TokenRow:
    return TokenRow(name, user, name, Role.ADMIN, f"hash of {name}", datetime.now(UTC), parent)


def known(room: Room, user: str = "ada") -> list[str]:
    return [row.id for row in room.control.accounts.known.tokens_of(user)]


async def vps(room: Room) -> TaskId:
    spec = TaskSpec("", task_type=TaskType.VPS, vps=VpsSpec())
    return (await room.control.vps.create("ada", spec)).id


async def test_a_number_of_a_token_is_never_given_again_over_restarts_either(tmp_path: Path) -> None:
    for number in (1, 3, 5):
        async with control_room(tmp_path) as room:
            accounts = room.control.accounts
            assert (await accounts.add_token(token(f"t{number}"))).number == number
            await accounts.end_token("ada", f"t{number}", ALL)
            made, ended = await asyncio.gather(
                accounts.add_token(token("short")), accounts.end_token("ada", "short", ALL)
            )
            assert (made.number, ended) == (number + 1, ("short", {"short"}))


async def test_of_a_token_and_one_that_is_made_with_it_in_the_same_turn_nothing_is_left(
    tmp_path: Path,
) -> None:
    async with control_room(tmp_path) as room:
        accounts = room.control.accounts
        await accounts.add_token(token("parent"))
        answers = await asyncio.gather(
            accounts.add_token(token("before", "parent")),
            accounts.add_token(token("grandchild", "before")),
            accounts.end_token("ada", "parent", ALL),
            accounts.add_token(token("after", "parent")),
            return_exceptions=True,
        )
        assert answers[2] == ("parent", {"parent", "before", "grandchild"})
        assert isinstance(answers[3], Unauthenticated)
        assert known(room) == []
    async with control_room(tmp_path) as room:
        assert known(room) == []


async def test_no_user_has_more_tokens_than_the_limit_however_many_are_asked_for_at_once(
    tmp_path: Path,
) -> None:
    async with control_room(tmp_path) as room:
        rows = [token(f"t{number}") for number in range(MAX_TOKENS_PER_USER + 20)]
        add = room.control.accounts.add_token
        answers = await asyncio.gather(*(add(row) for row in rows), return_exceptions=True)
        assert sum(isinstance(answer, Conflict) for answer in answers) == 20
        assert len(known(room)) == MAX_TOKENS_PER_USER
        assert (await add(token("other", user="bea"))).user_name == "bea"


async def test_a_vps_is_assigned_to_no_more_users_than_the_limit_and_to_all_named_or_none(
    tmp_path: Path,
) -> None:
    async with control_room(tmp_path) as room:
        accounts = room.control.accounts
        task_id = await vps(room)
        names = [f"u{number}" for number in range(MAX_ASSIGNMENTS + 1)]
        await asyncio.gather(*(room.add_user(name, Role.USER) for name in names))
        with pytest.raises(NotFound, match="no user 'nobody'"):
            await accounts.assign(task_id, ["u0", "nobody"], "otto")
        with pytest.raises(Conflict):
            await accounts.assign(task_id, names, "otto")
        assert accounts.known.assigned(task_id) == []
        await accounts.assign(task_id, names[1:], "otto")
        await accounts.assign(task_id, names[1:3], "somebody else")
        assert {row.assigned_by for row in accounts.known.assigned(task_id)} == {"otto"}
        with pytest.raises(Conflict):
            await accounts.assign(task_id, ["u0"], "otto")


async def test_what_is_given_and_taken_at_once_is_in_the_store_as_in_memory(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts = room.control.accounts
        one, two = await vps(room), await vps(room)
        for name in ("ben", "eve"):
            await room.add_user(name, Role.USER)
        await accounts.assign(one, ["ben"], "otto")
        await asyncio.gather(
            accounts.unassign(one, "ben"),
            accounts.assign(one, ["ben", "eve"], "ada"),
            accounts.unassign(one, "eve"),
            accounts.assign(two, ["eve"], "ada"),
            accounts.unassign(two, "eve"),
        )
        with pytest.raises(NotFound):
            await accounts.unassign(two, "eve")
        shown = accounts.known
        assert [(row.user_name, row.assigned_by) for row in shown.assigned(one)] == [("ben", "ada")]
        assert shown.assigned(two) == []
    async with control_room(tmp_path) as room:
        assert room.control.accounts.known == shown


async def test_a_vps_that_is_deleted_takes_its_assignments_with_it_in_the_same_turn(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts = room.control.accounts
        task_id = await vps(room)
        await room.control.tasks.kill(task_id)
        for name in ("ben", "eve"):
            await room.add_user(name, Role.USER)
        await accounts.assign(task_id, ["ben"], "otto")
        task = await room.control.tasks.find(task_id)
        await asyncio.gather(accounts.assign(task_id, ["eve"], "otto"), room.control.vps.delete(task))
        shown = accounts.known
        assert shown.assignments == {}
    async with control_room(tmp_path) as room:
        assert room.control.accounts.known == shown


@pytest.mark.parametrize("change", ["token", "assignment", "user"])
async def test_every_cache_hears_of_a_change_by_the_one_revision(tmp_path: Path, change: str) -> None:
    async with control_room(tmp_path) as room:
        heard: list[int] = []
        task_id = await vps(room)
        await room.add_user("ben", Role.USER)
        room.control.on_news = lambda: heard.append(room.control.figures.revision)
        before = room.control.figures.revision
        if change == "token":
            await room.control.accounts.add_token(token("t"))
        elif change == "assignment":
            await room.control.accounts.assign(task_id, ["ben"], "otto")
        else:
            await room.add_user("ben", Role.VIEWER)
        assert heard == [before + 1]


async def test_a_loss_is_told_and_a_gain_is_not(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts, told = room.control.accounts, 0

        def on_loss() -> None:
            nonlocal told
            told += 1

        accounts.on_loss = on_loss
        await room.join()
        await room.add_user("ben", Role.USER)
        task_id = await vps(room)
        await room.accept_orders()
        told = 0
        await room.report(task_id, TaskState.RUNNING, 1)
        await accounts.add_token(token("t"))
        await accounts.assign(task_id, ["ben"], "otto")
        assert told == 0
        for lost, loss in enumerate(
            (
                accounts.end_token("ada", "t", ALL),
                accounts.unassign(task_id, "ben"),
                room.add_user("ben", Role.VIEWER),
                room.report(task_id, TaskState.STOPPED, 2),
            ),
            1,
        ):
            await loss
            assert told == lost


async def test_whoever_names_no_token_of_their_own_ends_none(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts = room.control.accounts
        for row in (token("a"), token("b"), token("c", "a"), token("d", user="bea")):
            await accounts.add_token(row)
        wrong: list[tuple[str, str | None]] = [
            ("b", "a"),
            ("2", "a"),
            ("d", ALL),
            ("", ALL),
            ("a", ""),
            ("a", "gone"),
        ]
        for which, within in wrong:
            with pytest.raises(KohakuRiverError, match="manages no token"):
                await accounts.end_token("ada", which, within)
        assert await accounts.end_token("ada", "3", "a") == ("c", {"c"})


async def test_a_change_counts_and_is_told_once_it_is_committed_and_not_before(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts, told = room.control.accounts, asyncio.Event()
        await accounts.add_token(token("old"))
        accounts.on_loss = told.set
        decided, may_commit = asyncio.Event(), threading.Event()
        holding = asyncio.create_task(room.store.write(lambda _: may_commit.wait(30)))
        try:
            changing = asyncio.gather(
                accounts.add_token(token("new")),
                accounts.end_token("ada", "old", ALL),
                room.control.loop.call(lambda _: decided.set()),
            )
            await decided.wait()
            assert (known(room), told.is_set(), changing.done()) == (["old"], False, False)
        finally:
            may_commit.set()
        await holding
        await told.wait()
        assert known(room) == ["new"]
        await changing


async def test_a_commit_that_fails_gives_nothing_takes_nothing_and_tells_of_nothing(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts, lost = room.control.accounts, asyncio.Event()
        task_id = await vps(room)
        await room.add_user("ben", Role.USER)
        await accounts.add_token(token("old"))
        await accounts.assign(task_id, ["ben"], "otto")
        before, rights = accounts.known, Rights()
        accounts.on_loss = rights.look_again

        def check() -> str | None:
            return None if "old" in known(room) and accounts.known.is_assigned(task_id, "ben") else "lost"

        with rights.held(check, lambda _: lost.set()):
            for change in (
                lambda: accounts.add_token(token("new")),
                lambda: accounts.end_token("ada", "old", ALL),
                lambda: accounts.unassign(task_id, "ben"),
                lambda: room.add_user("ben", Role.VIEWER, active=False),
            ):
                room.store.fail_writes(DiskFault("the disk is full"), 1)
                with pytest.raises(Unavailable, match="the disk is full"):
                    await change()
                assert accounts.known == before
                await room.control.loop.watch.look()
            assert not lost.is_set()
            await accounts.end_token("ada", "old", ALL)
            assert lost.is_set()
            assert (await accounts.add_token(token("next"))).number == 2


async def test_what_was_committed_although_it_looked_otherwise_counts_and_is_told(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        accounts, told = room.control.accounts, asyncio.Event()
        await accounts.add_token(token("old"))
        accounts.on_loss = told.set
        before = room.control.figures.revision
        room.store.fail_writes(DiskFault("the disk is full"), 1, after=True)
        with pytest.raises(Unavailable, match="the disk is full"):
            await accounts.end_token("ada", "old", ALL)
        assert known(room) == []
        assert told.is_set()
        assert room.control.figures.revision > before
