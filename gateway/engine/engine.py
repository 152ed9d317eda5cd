"""What happens when a message comes in, goes out, is settled? The only object that changes the broker's state."""

from __future__ import annotations

from collections.abc import Callable

from gateway.engine.consuming import LATER, Later
from gateway.engine.definitions.definitions import VHOSTS, Definitions
from gateway.engine.definitions.policy import NAMESPACE as POLICIES
from gateway.engine.definitions.policy import Policies
from gateway.engine.events import EngineEvents
from gateway.engine.joining import Joining
from gateway.engine.kept import Kept
from gateway.engine.queues.burial import Burial
from gateway.engine.route import UNROUTABLE, Unroutable
from gateway.engine.schedule.schedule import Schedule
from gateway.engine.special import Special
from gateway.engine.state import DEFAULT_WINDOW_BYTES
from gateway.engine.transacting import Transacting
from gateway.errors import Overloaded
from gateway.model.message import Message
from gateway.model.properties import Properties
from gateway.model.records import Batch, Page, Record, Retained, Scheduled, StatePut

__all__ = ["LATER", "UNROUTABLE", "Engine", "Later", "Unroutable"]


class Engine(Transacting):
    """The queue engine: synchronous, never awaits, checks everything before it changes anything.

    What must last joins `batch`; the committer takes it with `take_batch` and tells when it is on disk.
    ``generation`` rises with every change that routes depend on. ``holdings``: per channel, what it holds unsettled.
    ``queues_by_id``: lanes of durable queues, as the journal names them. ``backlogs``: lanes of which something beyond the window
    is not on disk yet. ``getting``: queues of which somebody waits for an answer to `get`. ``returning``: what came
    back and waits, of which something is not on disk yet. ``dead``: what is to be dead-lettered.
    ``ours``: messages in the open batch that the engine published by itself. ``now_ms``: wall time, set by the runtime at the
    beginning of every turn; it never goes back. ``timers``: when `advance` has to be called.

    Args:
        events: who is told what is no answer to a call.
        properties: decodes a message's properties (for headers exchanges).
        node_id: a name of this start, for names that the engine chooses.
        window_budget: bytes of memory that a durable queue's head may take before the rest stays on disk.
    """

    def __init__(
        self,
        events: EngineEvents,
        properties: Callable[[Message], Properties],
        *,
        node_id: str = "0",
        window_budget: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        super().__init__(events, properties, window_budget)
        self.burial = Burial(self)
        self.policies = Policies(self)
        self.definitions = Definitions(self, node_id)
        self.kept = Kept(self)
        self.joining = Joining(self)
        self.schedule = Schedule(self)
        self.special = Special(self)

    # -- time ---------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Do what is due by now (wall time in ms since 1970). To be called when ``timers.next_due_ms`` has come."""
        self.now_ms = max(self.now_ms, now_ms)
        self.acts_alone = True
        try:
            self.timers.run(self.now_ms)
        finally:
            self.acts_alone = False
        self.finish()

    def scheduled_loaded(self, items: list[tuple[int, Message]]) -> None:
        """Take the scheduled messages that `EngineEvents.scheduled_wanted` asked for."""
        self.acts_alone = True
        try:
            self.schedule.loaded(items)
        finally:
            self.acts_alone = False
        self.finish()

    # -- the journal's side -------------------------------------------------

    def take_batch(self) -> Batch:
        """Return the open batch, which is the journal's from now on, and open a new one."""
        batch = self.batch
        self.batch = Batch()
        return batch

    def batch_prepared(self) -> None:
        """The batch that was taken has its segments."""
        for lane in self.backlogs:
            if lane.backlog is not None:
                lane.backlog.handed_over()
        for returns in self.returning:
            returns.handed_over()
        self.schedule.batch_prepared()
        self.special.batch_prepared()

    def committed(self) -> None:
        """The batch that was taken is on disk."""
        for lane in list(self.backlogs):
            if lane.backlog is not None:
                lane.backlog.committed()
                lane.queue.want_page()
            if lane.backlog is None or not lane.backlog.fresh:
                self.backlogs.pop(lane, None)
        for returns in list(self.returning):
            if not returns.committed():
                self.returning.pop(returns, None)
        self.schedule.committed()
        self.special.committed()
        if self.ours:
            self.ours = {message for message in self.batch.messages if message in self.ours}
        self.finish()

    def page_loaded(self, page: Page, after_position: int) -> None:
        """Take a page that `EngineEvents.page_wanted` asked for."""
        lane = self.queues_by_id.get(page.queue_id)
        if lane is not None and not lane.queue.deleted:
            returns = lane.queue.returns
            if returns is None or not returns.page_loaded(page, after_position):
                lane.page_loaded(page, after_position)
            self.finish()

    def replay(self, record: Record) -> None:
        """Take a fact that the journal kept. Only at start, before anything else."""
        match record:
            case StatePut(namespace=namespace) if namespace == POLICIES:
                self.policies.replay(record)
            case Retained() | StatePut():
                self.kept.replay(record)
                if isinstance(record, StatePut) and record.namespace == VHOSTS and record.value is not None:
                    self.vhost(record.key)
            case Scheduled():
                self.schedule.replay(record)
            case _:
                self.definitions.replay(record)

    def refuse_durable(self, reason: str) -> None:
        """Refuse what must last until `accept_durable`: the journal can't take it."""
        self.refusal = Overloaded(reason)

    def accept_durable(self) -> None:
        """Undo `refuse_durable`."""
        self.refusal = None
        self.burial.accepted()
        self.finish()
