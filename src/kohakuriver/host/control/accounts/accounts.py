"""Users, their tokens, and which VPS are assigned to whom, as one value: a change makes another one of it.

So whoever reads while a turn is being made reads what is committed (`ClusterState.accounts`), and a turn that
comes to nothing leaves nothing behind.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from kohakuriver.host.store.records import TokenRow, UserRow, VpsAssignment
from kohakuriver.models.errors import NotFound
from kohakuriver.models.ids import TaskId


@dataclass(frozen=True, slots=True)
class Accounts:
    """`users` by name, `tokens` by their hash, `assignments` by task and name.

    `newest_token_number`: of all that were given out, also to tokens that are deleted.
    """

    users: Mapping[str, UserRow] = field(default_factory=dict)
    tokens: Mapping[str, TokenRow] = field(default_factory=dict)
    assignments: Mapping[TaskId, Mapping[str, VpsAssignment]] = field(default_factory=dict)
    newest_token_number: int = 0

    def number_of(self, name: str) -> int | None:
        """Return the number of the user of exactly that name, if there is one."""
        user = self.users.get(name)
        return user.number if user else None

    def user_of_number(self, number: int) -> UserRow:
        """Raises NotFound if nobody has it."""
        for user in self.users.values():
            if user.number == number:
                return user
        raise NotFound(f"there is no user with the number {number}")

    def tokens_of(self, user_name: str, within: str | None = None) -> list[TokenRow]:
        """The user's tokens, oldest first; `within`: only the token of that id and what was made with it."""
        own = [token for token in self.tokens.values() if token.user_name == user_name]
        if within is not None:
            family = self.family_of(within)
            own = [token for token in own if token.id in family]
        return sorted(own, key=lambda token: (token.created_at, token.id))

    def family_of(self, token_id: str) -> set[str]:
        """The ids of a token and of all that were made with it, by itself or by one of those."""
        family, children = {token_id}, defaultdict(list)
        for token in self.tokens.values():
            children[token.parent_id].append(token.id)
        waiting = [token_id]
        while waiting:
            made = [child for child in children[waiting.pop()] if child not in family]
            family.update(made)
            waiting += made
        return family

    def assigned(self, task_id: TaskId) -> list[VpsAssignment]:
        """By the users' names."""
        return [row for _, row in sorted(self.assignments.get(task_id, {}).items())]

    def is_assigned(self, task_id: TaskId, user_name: str) -> bool:
        return user_name in self.assignments.get(task_id, ())

    def with_user(self, user: UserRow) -> "Accounts":
        return replace(self, users={**self.users, user.name: user})

    def with_token(self, token: TokenRow) -> "Accounts":
        return replace(self, tokens={**self.tokens, token.hash: token}, newest_token_number=token.number)

    def without_tokens(self, token_ids: Collection[str]) -> "Accounts":
        return replace(self, tokens={key: t for key, t in self.tokens.items() if t.id not in token_ids})

    def with_assignment(self, row: VpsAssignment) -> "Accounts":
        of_task = {**self.assignments.get(row.task_id, {}), row.user_name: row}
        return replace(self, assignments={**self.assignments, row.task_id: of_task})

    def without_assignment(self, task_id: TaskId, user_name: str) -> "Accounts":
        left = {name: row for name, row in self.assignments[task_id].items() if name != user_name}
        if not left:
            return self.without_task(task_id)
        return replace(self, assignments={**self.assignments, task_id: left})

    def without_task(self, task_id: TaskId) -> "Accounts":
        if task_id not in self.assignments:
            return self
        return replace(
            self, assignments={key: rows for key, rows in self.assignments.items() if key != task_id}
        )
