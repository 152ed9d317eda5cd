"""Why may no message be taken now, and who is held back, or told no?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from gateway.api.frontend import Log
from gateway.config import Limits
from gateway.engine.engine import Engine, Unroutable
from gateway.engine.route import RouteHandle
from gateway.errors import AccessRefused, GatewayError, MessageRefused, MessageTooLarge, NotFound, Overloaded
from gateway.journal.port import Journal
from gateway.model.message import Message
from gateway.runtime.memory import allowed_bytes, give_back, resident_bytes

if TYPE_CHECKING:
    from gateway.runtime.channel import BrokerChannel
    from gateway.runtime.streams.connection import StreamConnection

DEFAULT_SHARE = 0.6
"""Of the memory that the process may take, what it takes before publishers are held back."""
HARD_SHARE = 1.2
CLEAR_SHARE = 0.9
LOOK_S = 1.0
LOOK_SOONER_S = 0.1
CLOSE_SHARE = 0.8
"""From here on memory is looked at more often."""
GIVE_BACK_EVERY_LOOKS = 50
BATCH_STEP_SHARE = 1 / 32

_REASONS: dict[type[GatewayError], str] = {NotFound: "no exchange", AccessRefused: "no permission"}

Result = TypeVar("Result")

CONNECTION: ContextVar[StreamConnection | None] = ContextVar("connection", default=None)
"""The connection for which a task works. Tasks that its own starts have it, too."""


class Level(IntEnum):
    """How short memory is."""

    NONE = 0
    HIGH = 1
    HARD = 2


class Alarms:
    """Three causes: the journal fails, its disk is full (durable messages are refused), memory is short.

    Memory short: a connection that has published since then is not read from until there is memory again. If it also consumes, it
    is read from after ``limits.hold_ms``, so that its acknowledgements come in, and what it publishes is refused. Above the hard
    limit everybody's messages are refused. Nothing of this is on the way of a message while there is memory enough: channels
    are given another way to publish when the alarm is raised.

    Args:
        counters: where refusals are counted: ``refused.REASON``, and ``dropped.memory`` for transient messages.
        resident: tells how many bytes the process has in memory; 0: nobody knows, so there is no such alarm.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        log: Log,
        limits: Limits,
        counters: Counter[str],
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._engine = engine
        self.publish = engine.publish
        """How channels publish while memory is not short: one bound method for all of them."""
        self._journal = journal
        self._log = log
        self._counters = counters
        self._resident = resident
        self._hold_s = limits.hold_ms / 1e3
        self._high = _high(limits)
        self._hard = max(limits.memory_max_bytes or int(self._high * HARD_SHARE), self._high)
        self._token = trio.lowlevel.current_trio_token()
        self._channels: dict[BrokerChannel, None] = {}
        self._owned: dict[object, dict[BrokerChannel, None]] = {}
        self._failing: Overloaded | None = None
        self._disk: str | None = None
        self._full: Overloaded | None = None
        self._short: Overloaded | None = None
        self._changed = trio.Event()
        self._cleared = trio.Event()
        self._look_at = self._high
        self._looks = 0
        self.resident_bytes = 0
        self.level = Level.NONE
        self.number = 0
        """Of the memory alarm that is on, or was on last."""

    # -- what there is ------------------------------------------------------

    @property
    def causes(self) -> list[str]:
        """Return why publishers are held back or refused now, a line each; empty: they are not."""
        return [cause.text for cause in (self._failing, self._full, self._short) if cause is not None]

    async def until_changed(self) -> None:
        """Wait until `causes` are others. Cancellation: safe."""
        await self._changed.wait()

    async def until_memory(self) -> None:
        """Wait while memory is short. Cancellation: safe."""
        while self.level:
            await self._cleared.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        self._token.run_sync_soon(changed.set)

    # -- the journal and its disk -------------------------------------------

    @property
    def is_journal_failing(self) -> bool:
        """Nothing at all can be made to last now."""
        return self._failing is not None

    def journal_fails(self, reason: str) -> GatewayError:
        """Refuse what must last until `journal_works`; return the refusal."""
        self._failing = Overloaded(reason)
        self._judge_durable()
        return self._failing

    def journal_works(self) -> None:
        """Undo `journal_fails`."""
        if self._failing is not None:
            self._failing = None
            self._judge_durable()

    def end_of_turn(self) -> None:
        """See whether the journal has room, and whether the open batch has grown fast."""
        alarm = self._journal.alarm
        if alarm != self._disk:
            self._disk = alarm
            self._judge_disk()
        if self._engine.batch.body_bytes > self._look_at:
            self.look()

    def _judge_disk(self) -> None:
        if self._disk is None:
            self._full = None
            self._log.info("the journal has room again")
        elif self._full is None:
            self._counters["alarms.disk"] += 1
            self._log.error("durable messages are refused: the journal has no room", cause=self._disk)
        if self._disk is not None:
            self._full = Overloaded(self._disk)
        self._judge_durable()

    def _judge_durable(self) -> None:
        cause = self._failing or self._full
        if cause is None:
            self._engine.accept_durable()
        else:
            self._engine.refuse_durable(cause.text)
        self._tell()

    def removing(self, call: Callable[[], Result]) -> Result:
        """Do what makes room, though the disk is full: unless the journal can't be written at all."""
        engine = self._engine
        refusal = engine.refusal
        if self._failing is not None or refusal is None:
            return call()
        engine.refusal = None
        try:
            return call()
        finally:
            engine.refusal = refusal

    # -- memory -------------------------------------------------------------

    def look(self) -> float:
        """See how much memory is taken; return after how many seconds to look again. Cost: about 10 us."""
        if not self._high:
            return LOOK_S
        taken = self.resident_bytes = self._resident()
        self._look_at = self._engine.batch.body_bytes + int(self._high * BATCH_STEP_SHARE)
        if self.level:
            self._looks += 1
            if self._looks % GIVE_BACK_EVERY_LOOKS == 0:
                give_back()
        clear = self._high * CLEAR_SHARE
        if taken >= self._hard:
            self._set_level(Level.HARD)
        elif taken >= self._high:
            self._set_level(Level.HIGH)
        elif taken <= clear:
            self._set_level(Level.NONE)
        elif self.level:
            self._set_level(Level.HIGH)
        return LOOK_S if taken < self._high * CLOSE_SHARE else LOOK_SOONER_S

    def _set_level(self, level: Level) -> None:
        before, self.level = self.level, level
        if level == before:
            return
        if level:
            limit = self._hard if level is Level.HARD else self._high
            self._short = Overloaded(f"memory is short: {self.resident_bytes} bytes are taken, the limit is {limit}")
        if not before:
            self.number += 1
            self._counters["alarms.memory"] += 1
            self._log.error("publishers are held back: memory is short", taken=self.resident_bytes, limit=self._high)
            self._divert()
        elif not level:
            self._short = None
            self._log.info("there is memory again", taken=self.resident_bytes)
            self._divert()
            cleared, self._cleared = self._cleared, trio.Event()
            self._token.run_sync_soon(cleared.set)
        self._tell()

    def _divert(self) -> None:
        for channel in self._channels:
            self._show_way(channel)

    def _show_way(self, channel: BrokerChannel) -> None:
        channel.publish_by(partial(self._publish, channel) if self.level else self.publish)

    def _publish(self, channel: BrokerChannel, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        """Publish while memory is short: who does so is held back, or refused."""
        return self.publisher_refusal(channel.owner) or self._engine.publish(route, message)

    def publisher_refusal(self, owner: object) -> GatewayError | None:
        """Return as `memory_refusal`, and have the connection held back that publishes; `owner`: of its channels."""
        connection = CONNECTION.get()
        if self.level and connection is not None and connection.refused_in != self.number:
            connection.held_in = self.number
            connection.publisher = owner
        return self.memory_refusal()

    def memory_refusal(self) -> GatewayError | None:
        """Return why the connection for which this task works may not publish; None: it may."""
        if not self.level:
            return None
        connection = CONNECTION.get()
        refused = self.level is Level.HARD or (connection is not None and connection.refused_in == self.number)
        return self._short if refused else None

    async def until_read(self, connection: StreamConnection) -> None:
        """Wait until a connection may be read from that has published while memory is short. Cancellation: safe."""
        while self.level and connection.held_in == self.number != connection.refused_in:
            if self._consumes(connection.publisher):
                with trio.move_on_after(self._hold_s):
                    await self._cleared.wait()
                connection.refused_in = self.number
            else:
                await self._cleared.wait()
        connection.held_in = 0

    def may_be_read(self, connection: StreamConnection, held_s: float) -> bool:
        """Say whether the wait of `until_read` is over, for a connection that has been held back for so long."""
        if self.level and connection.held_in == self.number != connection.refused_in:
            if held_s < self._hold_s or not self._consumes(connection.publisher):
                return False
            connection.refused_in = self.number
        connection.held_in = 0
        return True

    def _consumes(self, owner: object) -> bool:
        """Say whether a channel, or one of those that belong to the same owner, may have something to acknowledge."""
        if owner in self._channels and owner.is_consuming:
            return True
        return any(channel.is_consuming for channel in self._owned.get(owner, ()))

    # -- channels -----------------------------------------------------------

    def opened(self, channel: BrokerChannel) -> None:
        """A channel is there. Who has several on one connection may consume on one and publish on another."""
        self._channels[channel] = None
        if channel.owner is not channel:
            self._owned.setdefault(channel.owner, {})[channel] = None
        if self.level:
            self._show_way(channel)

    def closed(self, channel: BrokerChannel) -> None:
        """A channel is gone."""
        self._channels.pop(channel, None)
        channels = self._owned.get(channel.owner)
        if channels is not None:
            channels.pop(channel, None)
            if not channels:
                del self._owned[channel.owner]

    # -- counting -----------------------------------------------------------

    def count_refused(self, message: Message, error: GatewayError) -> None:
        """Count a message that was refused, by reason."""
        reason = self._reason(error)
        name = f"refused.{reason}" if message.persistent else f"dropped.{reason}"
        self._counters[name] += 1

    def count_withdrawn(self, amount: int) -> None:
        """Count what was taken in and told no later, as the journal failed for too long."""
        self._counters["refused.journal"] += amount

    def _reason(self, error: GatewayError) -> str:
        if error is self._short:
            return "memory"
        if error is self._engine.refusal:
            return "journal" if self._failing is not None else "disk"
        if isinstance(error, MessageRefused):
            return "too large" if isinstance(error, MessageTooLarge) else "full"
        return _REASONS.get(type(error), "other")


def _high(limits: Limits) -> int:
    if limits.memory_high_bytes is None:
        return int(allowed_bytes() * DEFAULT_SHARE)
    return limits.memory_high_bytes
