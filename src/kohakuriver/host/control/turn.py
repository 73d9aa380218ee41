"""One turn of the control loop: a set of changes being made to the state and written down to be committed.

Handlers check first and change after, so that one which raises has changed nothing.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from kohakuriver.host.control.nodes.node import LiveNode
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.store.records import (
    Changes,
    NodeRow,
    OrderRow,
    TaskEvent,
    TokenRow,
    UserRow,
    VpsAssignment,
)
from kohakuriver.models.abilities import Ability
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import NotFound
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.vps import VpsState


class Turn:
    """`now` is the time of the whole turn (aware UTC), `monotonic` the same moment for timeouts.

    `new_id` gives ids of tasks, batches and orders, which only ever grow, over restarts too. While
    `read_only` the store cannot be written: a handler that runs all the same leaves `changes` empty.
    `output_paths` gives the paths of an attempt's two streams in shared storage. `nodes_before`: what was
    known of the nodes that the turn deals with, for when it comes to nothing. `accounts`: as the turn makes
    them; those of the state are what is committed.
    """

    def __init__(
        self,
        state: ClusterState,
        now: datetime,
        monotonic: float,
        new_id: Callable[[], TaskId],
        output_paths: Callable[[TaskId, int], tuple[str, str]],
    ) -> None:
        self.state = state
        self.now = now
        self.monotonic = monotonic
        self.new_id = new_id
        self.output_paths = output_paths
        self.changes = Changes()
        self.accounts = state.accounts
        self.read_only = False
        self.nodes_before: dict[str, LiveNode] = {}

    def add_task(self, task: Task, detail: str | None = None) -> None:
        self.changes.new_tasks[task.id] = task
        self.state.put(task)
        self.note(task, EventKind.SUBMITTED, detail)

    def step(self, after: Task, detail: str | None = None) -> Task:
        """Take in the record of a task that made a step; its history names the state that it came to."""
        return self.replace_task(after, EventKind.of_step(after.state), detail)

    def replace_task(self, after: Task, kind: EventKind, detail: str | None = None) -> Task:
        """Take in a record that a pure rule made of the current one."""
        self.put_task(after)
        self.note(after, kind, detail)
        return after

    def put_task(self, task: Task) -> None:
        """Take a record in, without a line of history."""
        before = self.state.tasks.get(task.id)
        if before is not None and before.attempt is not task.attempt:
            self._keep_ended(before, task)
        target = self.changes.new_tasks if task.id in self.changes.new_tasks else self.changes.changed_tasks
        target[task.id] = task
        self.state.put(task)

    def next_attempt(self, task: Task, node: str, number: int | None = None) -> Attempt:
        """The record of an attempt on that node: the task's next one, or the one of that number."""
        number = self.state.next_number(task) if number is None else number
        view = self.state.table.peek(node)
        shared = view is not None and Ability.SHARED_STORAGE in view.offers
        stdout_path, stderr_path = self.output_paths(task.id, number) if shared else (None, None)
        return Attempt(
            number,
            node,
            stdout_path=stdout_path,
            stderr_path=stderr_path,
            # What the one before had, until its runner tells otherwise.
            image_digest=task.attempt.image_digest,
            address=task.attempt.address,
        )

    def begin(self, task: Task, node: str, detail: str, vps_state: VpsState | None = None) -> Task:
        """Begin the next attempt of a task, and have the node told; `vps_state`: its state from now on.

        Raises ForbiddenTransition, with nothing changed, for a task that can begin none.
        """
        begun = task.begun(self.next_attempt(task, node))
        if vps_state is not None:
            begun = changed(begun, vps_state=vps_state)
        self.step(begun, detail)
        self.order(begun, OrderKind.EXECUTE)
        return begun

    def delete_task(self, task_id: TaskId) -> None:
        """Forget a task that has ended, with its history and to whom it was assigned; the caller has seen to
        what it left elsewhere.
        """
        self.end_orders_of(task_id)
        self.changes.changed_tasks.pop(task_id, None)
        self.changes.events = [event for event in self.changes.events if event.task_id != task_id]
        self.changes.deleted_tasks.append(task_id)
        self.state.forget(task_id)
        given = self.changes.assignments
        self.changes.assignments = {key: row for key, row in given.items() if key[0] != task_id}
        self.accounts = self.accounts.without_task(task_id)

    def note(self, task: Task, kind: EventKind, detail: str | None = None) -> None:
        """Add a line to the task's history."""
        self.changes.events.append(TaskEvent(task.id, self.now, kind, task.attempt.number, detail))

    def order(self, task: Task, kind: OrderKind) -> None:
        """Have the task's node told to do something with its current attempt."""
        if task.assigned_node is None:
            raise ValueError(f"task {task.id} has no node to be told anything")
        row = OrderRow(int(self.new_id()), task.assigned_node, task.id, task.attempt.number, kind, self.now)
        self.state.orders.put(row)
        self.changes.new_orders[row.id] = row

    def end_order(self, order_id: int) -> None:
        if not self.state.orders.take_out(order_id):
            return
        if self.changes.new_orders.pop(order_id, None) is None:
            self.changes.done_orders.append(order_id)

    def end_orders_of(self, task_id: TaskId) -> None:
        for order in self.state.orders.of_task(task_id):
            self.end_order(order.id)

    def known_node(self, hostname: str) -> LiveNode:
        """The node of that name; raises NotFound, also for one that was removed a moment ago."""
        node = self.state.nodes.get(hostname)
        if node is None:
            raise NotFound(f"there is no node {hostname[:80]!r}; `kohakuriver node list` shows them")
        if hostname not in self.nodes_before:
            self.nodes_before[hostname] = node.copy()
        return node

    def put_node(self, node: LiveNode, row: NodeRow) -> None:
        node.row = row
        self.changes.nodes[row.hostname] = row
        self.state.put_node(node)

    def remove_node(self, hostname: str) -> None:
        """Forget a node; the caller has seen to its tasks and orders."""
        self.changes.nodes.pop(hostname, None)
        self.changes.ended_nodes.append(hostname)
        self.state.remove_node(hostname)

    def put_user(self, user: UserRow) -> UserRow:
        """Take in a user, new or changed; returns it with the number that it has or now gets."""
        known = self.accounts.users
        before = known.get(user.name)
        number = before.number if before else max((other.number for other in known.values()), default=0) + 1
        user = replace(user, number=number)
        self.changes.users[user.name] = user
        self.accounts = self.accounts.with_user(user)
        return user

    def add_token(self, token: TokenRow) -> TokenRow:
        """Return the token with its number. Whoever revokes by number must never meet another token."""
        token = replace(token, number=self.accounts.newest_token_number + 1)
        self.changes.new_tokens[token.id] = token
        self.accounts = self.accounts.with_token(token)
        return token

    def end_tokens(self, token_ids: Collection[str]) -> None:
        self.changes.ended_tokens.extend(sorted(token_ids))
        self.accounts = self.accounts.without_tokens(token_ids)

    def put_assignment(self, row: VpsAssignment) -> None:
        self.changes.assignments[row.task_id, row.user_name] = row
        self.accounts = self.accounts.with_assignment(row)

    def end_assignment(self, task_id: TaskId, user_name: str) -> None:
        self.changes.assignments.pop((task_id, user_name), None)
        self.changes.ended_assignments.append((task_id, user_name))
        self.accounts = self.accounts.without_assignment(task_id, user_name)

    def _keep_ended(self, before: Task, after: Task) -> None:
        """Have the store keep an attempt that is over with this change, as it ended."""
        was, attempt = before.attempt, after.attempt
        if attempt.end is None:
            goes_on = attempt.node is not None and attempt.number == was.number
            if goes_on or was.node is None or was.end is not None:
                return
            attempt = was.ended(TaskState.LOST, self.now, after.error_message)
        self.changes.ended_attempts[after.id, attempt.number] = attempt
