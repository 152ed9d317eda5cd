"""What does an engine know?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.engine.events import EngineEvents
from gateway.engine.queues.delivery import Entry
from gateway.engine.timers import Timers
from gateway.engine.vhost import VirtualHost
from gateway.errors import GatewayError
from gateway.model.message import Message
from gateway.model.properties import Properties
from gateway.model.records import Batch

if TYPE_CHECKING:
    from gateway.engine.definitions.definitions import Definitions
    from gateway.engine.definitions.policy import Policies
    from gateway.engine.joining import Joining
    from gateway.engine.kept import Kept
    from gateway.engine.queues.burial import Burial, Dead
    from gateway.engine.queues.lane import Lane
    from gateway.engine.queues.queue import Queue
    from gateway.engine.queues.returns import Returns
    from gateway.engine.schedule.schedule import Schedule
    from gateway.engine.special import Special

DEFAULT_WINDOW_BYTES = 8 * 1024 * 1024


class State:
    """The attributes that all rooms of an engine share; `gateway.engine.engine.Engine` says what they are."""

    definitions: Definitions
    joining: Joining
    kept: Kept
    policies: Policies
    schedule: Schedule
    special: Special
    burial: Burial

    def __init__(self, events: EngineEvents, properties: Callable[[Message], Properties], window_budget: int) -> None:
        self.events: EngineEvents = events
        self.properties: Callable[[Message], Properties] = properties
        self.window_budget: int = window_budget
        self.batch: Batch = Batch()
        self.generation: int = 0
        self.vhosts: dict[str, VirtualHost] = {}
        self.queues_by_id: dict[int, Lane] = {}
        self.holdings: dict[object, set[Entry]] = {}
        self.backlogs: dict[Lane, None] = {}
        self.getting: dict[Queue, None] = {}
        self.returning: dict[Returns, None] = {}
        self.dead: deque[Dead] = deque()
        self.ours: set[Message] = set()
        self.acts_alone: bool = False
        self.tried: Message | None = None  # what is kept, and tried again, if it is refused
        self.refusal: GatewayError | None = None
        self.now_ms: int = 0
        self.timers: Timers = Timers()

    def vhost(self, name: str) -> VirtualHost:
        """Return a virtual host; it exists as soon as it is named."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            vhost = self.vhosts[name] = VirtualHost(name)
        return vhost

    def finish(self) -> None:
        """End an operation: see to what it left to be dead-lettered. A consumer's credit and a page are operations too."""
        if self.dead:
            self.burial.work_off()
