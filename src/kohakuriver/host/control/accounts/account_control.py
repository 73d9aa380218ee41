"""What may be asked of users, tokens and assignments. What changes something returns after the commit."""

from collections.abc import Callable, Sequence
from functools import partial

from kohakuriver.host.control.accounts import account_changes
from kohakuriver.host.control.accounts.accounts import Accounts
from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.store.records import Changes, TokenRow
from kohakuriver.models.ids import TaskId


class AccountControl:
    """See `account_changes` for what the calls mean and raise.

    `on_loss` is called after each commit by which somebody may have lost a right.
    """

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop
        self.on_loss: Callable[[], None] = lambda: None

    @property
    def known(self) -> Accounts:
        """All of them, as committed."""
        return self._loop.state.accounts

    async def add_token(self, token: TokenRow) -> TokenRow:
        return await self._loop.call(partial(account_changes.add_token, token=token))

    async def end_token(self, user_name: str, which: str, within: str | None) -> tuple[str, set[str]]:
        end = partial(account_changes.end_token, user_name=user_name, which=which, within=within)
        return await self._loop.call(end)

    async def provide_admin(self, known: str | None, spare: TokenRow) -> TokenRow:
        """While the host starts, before the loop runs."""
        return await self._loop.turn_before_run(
            partial(account_changes.provide_admin, known=known, spare=spare)
        )

    async def assign(self, task_id: TaskId, user_names: Sequence[str], by: str) -> None:
        await self._loop.call(partial(account_changes.assign, task_id=task_id, user_names=user_names, by=by))

    async def unassign(self, task_id: TaskId, user_name: str) -> None:
        await self._loop.call(partial(account_changes.unassign, task_id=task_id, user_name=user_name))

    def tell(self, committed: Changes) -> None:
        if account_changes.may_end_rights(committed):
            self.on_loss()
