"""Whose session ends next, whose will is to be published next, while their clients are away?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as replaced
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gateway.api import Channel, Gateway, GatewayError, Outcome, Principal
from gateway_mqtt.session import SessionKey
from gateway_mqtt.store import NEVER_EXPIRES, SessionRecord, StoredWill, Stores
from gateway_mqtt.sys_topics import NONE, Stock
from gateway_mqtt.translate.sessions import session_queue_name, subscribed
from gateway_mqtt.wills import FOR_EVER, publish_will

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLISECONDS: Final = 1_000
FEW: Final = 100
"""Appointments that were cancelled are swept out of the heap when they are more than those that stand, and more than this."""
SOONEST_MS: Final = 1_000
LATEST_MS: Final = 600_000
"""A will that is refused is tried again after as long as it is late already, but for these."""
MOST_LATE = 1_000
"""So many refused wills are kept of sessions that are over; they are in memory only."""


class Diary:
    """What is due when? One appointment per client; the times are wall time in ms."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[SessionKey, int] = {}
        self._heap: list[tuple[int, SessionKey]] = []

    def __len__(self) -> int:
        return len(self._due)

    @property
    def next_due_ms(self) -> int | None:
        """When the next appointment is due; None: there is none."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def put(self, key: SessionKey, due_ms: int) -> None:
        """Make an appointment in place of any that there is."""
        self._due[key] = due_ms
        heappush(self._heap, (due_ms, key))
        if len(self._heap) > 2 * len(self._due) + FEW:
            self._heap = [(due_ms, key) for key, due_ms in self._due.items()]
            heapify(self._heap)

    def cancel(self, key: SessionKey) -> None:
        """Forget an appointment, if there is one."""
        self._due.pop(key, None)

    def take(self, now_ms: int) -> Iterator[SessionKey]:
        """Yield, and forget, what is due by now."""
        while (due_ms := self.next_due_ms) is not None and due_ms <= now_ms:
            key = heappop(self._heap)[1]
            del self._due[key]
            yield key


@dataclass(frozen=True, slots=True)
class Absent:
    """A lasting session whose client is away.

    Args:
        record: as it is in the journal; its `ended_at_ms` is known, and its will, if it has one, is due.
        subscriptions: how many topic filters it has.
        again_ms: when its will is tried again; None: it was not refused.
    """

    record: SessionRecord
    subscriptions: Stock = NONE
    again_ms: int | None = None

    @property
    def ends_at_ms(self) -> int | None:
        """When the session ends; None: never."""
        record = self.record
        if record.expiry_s == NEVER_EXPIRES or record.ended_at_ms is None:
            return None
        return record.ended_at_ms + record.expiry_s * MILLISECONDS

    @property
    def next_due_ms(self) -> int | None:
        """When there is something to be done."""
        will_ms = self.record.will_due_ms if self.again_ms is None else self.again_ms
        due = [at for at in (self.ends_at_ms, will_ms) if at is not None]
        return min(due, default=None)


@dataclass(frozen=True, slots=True)
class _Late:
    """The will of a session that is over, which was refused when it was due."""

    will: StoredWill
    due_ms: int


class _Deaf:
    """Nobody waits for these outcomes; what is refused is counted and logged by the broker."""

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        pass


class Absences:
    """The lasting sessions whose clients are away: their wills are published and they end when it is time.

    Args:
        ended: told of a session that has ended, before its queue is deleted.
        shared: tells how many shared subscriptions a lasting session has.
        sooner: called when the next appointment may have come closer.

    ``expired``: how many sessions have ended because their clients stayed away. ``stock``: how many subscriptions they have.
    """

    def __init__(
        self,
        gateway: Gateway,
        stores: Stores,
        ended: Callable[[SessionKey, Channel], None],
        sooner: Callable[[], None],
        shared: Callable[[Channel, SessionKey], int],
    ) -> None:
        self._gateway = gateway
        self._stores = stores
        self._ended = ended
        self._sooner = sooner
        self._shared = shared
        self._diary = Diary()
        self._away: dict[SessionKey, Absent] = {}
        self._late: dict[SessionKey, _Late] = {}
        self._channels: dict[str, Channel] = {}
        self.expired = 0
        self.stock = NONE

    def __len__(self) -> int:
        return len(self._away)

    @property
    def next_due_ms(self) -> int | None:
        """When `run` has something to do; None: it has not."""
        return self._diary.next_due_ms

    def channel(self, vhost: str) -> Channel:
        """Return the channel by which the broker itself acts in a virtual host, in place of clients that are away."""
        channel = self._channels.get(vhost)
        if channel is None:
            channel = self._channels[vhost] = self._gateway.open_channel(Principal("mqtt", vhost), _Deaf())
        return channel

    def hindrance(self, vhost: str) -> GatewayError | None:
        """Return why no session can be ended now: nothing can be written, and so no queue be deleted; None: it can."""
        channel = self.channel(vhost)
        return channel.refused(channel.barrier())

    @property
    def vhosts(self) -> list[str]:
        """The virtual hosts in which the broker has acted: those that clients have been in, and the default one."""
        return list(self._channels)

    # -- coming and going ---------------------------------------------------

    def restore(self) -> None:
        """Take over what the journal knows: whoever was connected when the broker ended is away from now on."""
        now_ms = self._gateway.now_ms()
        for key, record in list(self._stores.scan_records(self.channel("/"))):
            channel = self.channel(key[0])
            queue = session_queue_name(key[1])
            if not channel.queue_exists(queue):
                self._end(key, record)
                continue
            shared = self._shared(channel, key)
            filters = Stock(sum(1 for _ in subscribed(channel, queue)) + shared, shared)
            self.leave(key, left(record, now_ms) if record.ended_at_ms is None else record, filters)

    def leave(self, key: SessionKey, record: SessionRecord, subscriptions: Stock) -> None:
        """A client has gone away. Its will, if it is due by now, is published at once.

        Args:
            record: as `left` returned it; it is put into the journal.
            subscriptions: how many topic filters it has.
        """
        self._away[key] = Absent(record, subscriptions)
        self._count(subscriptions, 1)
        self._see_to(key)

    def come_back(self, key: SessionKey, *, ends: bool) -> SessionRecord | None:
        """A client is back: its will is not published any more [MQTT5-3.1.3-9], unless its session ends.

        One that was due and refused isn't, either: it would say that the client is lost.

        Args:
            ends: what it had is not gone on with. Its queue is the caller's to delete, as he waits for that.
        Returns:
            what was known of the session, whose client was away; None: nothing was.
        """
        absent = self._away.pop(key, None)
        self._late.pop(key, None)
        self._diary.cancel(key)
        if absent is None:
            return None
        self._count(absent.subscriptions, -1)
        if ends:
            if absent.again_ms is None:
                self._publish(key, absent.record.will)
            self._forget(key)
        return absent.record

    def end(self, key: SessionKey, record: SessionRecord) -> None:
        """End a session at once, with the connection that had it."""
        self._end(key, record)

    def _count(self, stock: Stock, sign: int) -> None:
        self.stock = Stock(self.stock.all + sign * stock.all, self.stock.shared + sign * stock.shared)

    # -- when the time comes ------------------------------------------------

    def run(self, most: int) -> None:
        """Do what is due until that has been effort enough: a client is one, and so is each of its subscriptions."""
        effort = 0
        for key in self._diary.take(self._gateway.now_ms()):
            late = self._late.pop(key, None)
            if late is not None:
                effort += 1
                self.publish(key, late.will, late.due_ms)
            else:
                effort += 1 + self._away[key].subscriptions.all
                self._see_to(key)
            if effort >= most:
                return

    def _see_to(self, key: SessionKey) -> None:
        """Do for one client what is due by now, keep what is left, and make the next appointment."""
        now_ms = self._gateway.now_ms()
        absent = self._away[key]
        record = absent.record
        if absent.ends_at_ms is not None and absent.ends_at_ms <= now_ms:
            self._expire(key, absent, now_ms)
            return
        if record.will_due_ms is not None and record.will_due_ms <= now_ms:
            if self._publish(key, record.will):
                absent = replaced(absent, record=without_will(record), again_ms=None)
            else:
                absent = replaced(absent, again_ms=_again_ms(record.will_due_ms, now_ms))
        if absent.record is not record or self._away[key].again_ms is None:
            self._keep(key, absent.record)
        self._away[key] = absent
        due_ms = absent.next_due_ms
        if due_ms is not None:
            self._diary.put(key, due_ms)
            self._sooner()

    def _expire(self, key: SessionKey, absent: Absent, now_ms: int) -> None:
        """End a session; while nothing can be written, and so its queue not be deleted, all of it is kept: it is tried again."""
        if self.hindrance(key[0]) is not None:
            self._diary.put(key, _again_ms(absent.ends_at_ms or now_ms, now_ms))
            self._sooner()
            return
        del self._away[key]
        self._count(absent.subscriptions, -1)
        self.expired += 1
        self._gateway.count("sessions_expired")
        self._end(key, absent.record)

    def _end(self, key: SessionKey, record: SessionRecord) -> None:
        """The session is over [MQTT5-4.1.0-2], and with it the delay of its will [MQTT5-3.1.2-8]."""
        if record.will is not None:
            self.publish(key, record.will, record.will_due_ms)
        self._forget(key)
        channel = self.channel(key[0])
        queue = session_queue_name(key[1])
        if channel.queue_exists(queue):
            channel.delete_queue(queue)

    def _forget(self, key: SessionKey) -> None:
        channel = self.channel(key[0])
        self._ended(key, channel)
        self._stores.drop(channel, key)

    def publish(self, key: SessionKey, will: StoredWill, due_ms: int | None = None) -> None:
        """Publish the will of a session that is over. If it is refused it is tried again, unless its client is back before.

        Args:
            due_ms: when it was due; None: now.
        """
        if self._publish(key, will):
            return
        if len(self._late) >= MOST_LATE:
            self._gateway.count("wills_lost")
            return
        now_ms = self._gateway.now_ms()
        due_ms = now_ms if due_ms is None else min(due_ms, now_ms)
        self._late[key] = _Late(will, due_ms)
        self._diary.put(key, _again_ms(due_ms, now_ms))
        self._sooner()

    def _publish(self, key: SessionKey, will: StoredWill | None) -> bool:
        """Return whether nothing is left to be tried again."""
        try:
            return will is None or publish_will(self.channel(key[0]), will, self._gateway.now_ms())
        except FOR_EVER:
            self._gateway.count("wills_lost")
            return True

    def _keep(self, key: SessionKey, record: SessionRecord) -> None:
        self._stores.open(self.channel(key[0]), key, lasts=True).put_record(record)


def _again_ms(due_ms: int, now_ms: int) -> int:
    """Return when a will that was refused, and had been due then, is tried again."""
    return now_ms + min(max(now_ms - due_ms, SOONEST_MS), LATEST_MS)


def left(record: SessionRecord, now_ms: int) -> SessionRecord:
    """Return the record of a session whose connection has just ended: if there is a will, its delay begins."""
    will = record.will
    due_ms = None if will is None else now_ms + will.delay_s * MILLISECONDS
    return replace(record, ended_at_ms=now_ms, will_due_ms=due_ms)


def without_will(record: SessionRecord) -> SessionRecord:
    """Return the record of a session that has no will, or none any more."""
    return replace(record, will=None, will_due_ms=None)
