"""Is a client's session there? What its client may say of that, which the broker has to agree to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from gateway.model.records import StatePut
from gateway_mqtt.store import OUTGOING, Run, _decode, pairs_of
from tests.simulation import contents
from tests.simulation.mqtt_books import is_open
from tests.simulation.program import text_of

if TYPE_CHECKING:
    from tests.simulation.mqtt_client import MqttClient
    from tests.simulation.wires import SimConnection
    from tests.simulation.world import World

SLACK_MS = 1_500
FOR_EVER = float("inf")


class SessionBelief:
    """What is certain about a session.

    ``there``: True: it is there, unless its time is up. False: it is not. None: nobody knows. ``lost``: it has ended without its
    client, which begins anew then: it could not tell a new session, whose CONNACK was lost, from its own.

    ``alive_ms``: when its connection was there for the last time, by the broker's clock; ``peak_ms``: the latest time since.
    ``closed_ms``: since when there is none.
    """

    def __init__(self, client: MqttClient) -> None:
        self.client = client
        self.world = client.world
        self.there: bool | None = False
        self.lost = False
        self.alive_ms = 0
        self.peak_ms: float = 0
        self.closed_ms: int | None = None
        self._ended_s = 0.0
        self._steady = True
        self._had_expired = False
        self._leaving: SimConnection | None = None
        self._queue: Any = None

    @property
    def expiry_ms(self) -> float:
        return FOR_EVER if self.client.expiry_s is None else self.client.expiry_s * 1_000

    # -- what happens -------------------------------------------------------

    def begin_life(self) -> None:
        if self.there is False and self.client.lasting:  # that may not have been on disk
            self.there = None
        starting_ms = math.ceil((trio.current_time() - self._ended_s) * 1_000)
        self.ends_life()
        now_ms = self.world.engine.now_ms
        self.alive_ms, self.peak_ms = min(self.alive_ms, now_ms), max(self.peak_ms, now_ms)  # the last one may have been ahead
        self.world.testaments.begin_life(self.client._wills, now_ms - starting_ms)

    def ends_life(self) -> None:
        """What was known of a broker is of no more use."""
        self._ended_s = trio.current_time()
        self._steady = False
        self._leaving = None
        self.closed_ms = None
        self._queue = None

    def clock_was_set(self) -> None:
        """What is due by the clock may be due at once, or later than seems."""
        self.peak_ms = FOR_EVER
        self._steady = False

    def ends(self) -> None:
        """A CONNECT is on its way that begins anew."""
        self.there = None if self.there else self.there
        self.lost = True  # until a CONNACK says so
        self._forget()

    def connects(self) -> None:
        self._leaving = None
        self._had_expired = self._has_expired()

    def leaves(self) -> None:
        self._leaving = self.client.connection

    def connected(self, *, clean: bool, present: bool) -> None:
        """A CONNACK tells what is there."""
        check, name = self.world.ledger.check, self.client.name
        if clean or self.there is False or self._had_expired:
            check(not present, f"{name} is told that its session is there, which it is not")
        elif self.there and not self.may_expire and not self.world.storms:
            check(present, f"{name} is told that its session is gone: {self.alive_ms} {self.peak_ms}")
        if not present:
            self._forget()
        if not self.client.is_alive:  # it is old news
            self.there = None if self.client.lasting else False
            return
        self.there = self.client.lasting
        self.lost = False
        self._queue = self._present() if self.client.lasting else None
        self._alive(self.world.engine.now_ms)

    def _forget(self) -> None:
        ledger = self.world.ledger
        if ledger.shapes.pop(self.client.queue, None) is not None:
            ledger.forgive(self.client.queue)
            self.world.books.session_ends(self.client)
        self._queue = None

    # -- what time does -----------------------------------------------------

    @property
    def may_expire(self) -> bool:
        return self.peak_ms >= self.alive_ms + self.expiry_ms

    def _has_expired(self) -> bool:
        if not self._steady or self.closed_ms is None or not self.world.is_calm:
            return False
        return self.world.engine.now_ms > self.closed_ms + self.expiry_ms + SLACK_MS

    def _alive(self, now_ms: int) -> None:
        self.alive_ms, self.peak_ms, self.closed_ms, self._steady = now_ms, now_ms, None, True

    def _present(self) -> Any:
        return self.world.engine.vhost("/").queues.get(self.client.queue)

    def watch(self, now_ms: int) -> None:
        """Look at what has become of connection and session."""
        if self.client.is_alive:
            self._alive(now_ms)
        else:
            self.peak_ms = max(self.peak_ms, now_ms)
            if self.closed_ms is None and not self.world.has_connection(self.client.name):
                self.closed_ms = now_ms
        self.world.testaments.watch(self.client._wills)
        self.look()
        leaving = self._leaving
        if leaving is not None and not is_open(leaving) and not leaving._incoming and contents.is_quiet(self.world.broker):
            self._leaving = None
            if leaving.reason is not None and leaving.reason.name == "LOCAL":
                self.client.took_leave()

    def look(self) -> None:
        """A session may end because it is full, or because its time is up: not otherwise."""
        if self.client.queue not in self.world.ledger.shapes:
            return
        known, there = self._queue, self._present()
        if there is None or (known is not None and known is not there):
            self.world.log(f"the session of {self.client.name} has ended")
            self.peak_ms = max(self.peak_ms, self.world.engine.now_ms)
            full = self.world.ends_full_sessions and self.world.broker.counters["dropped.queue ended"]
            unwritten = self.world.storms  # a session may be let in that could not be written
            may = full or self.may_expire or unwritten
            self.world.ledger.check(may, f"{self.client.queue} is gone, and there is no reason for that")
            self.there = False if there is None and self.client.connection is None else None
            self.lost = True
            for will in self.client._wills:
                will.early = True
            self._forget()
        self._queue = there


def journaled_identifiers(world: World, queue: str) -> dict[str, int]:
    """Return which messages of QoS 1 the journal knows to be in flight in a session: text -> packet identifier."""
    there = world.engine.vhost("/").queues.get(queue)
    if world.directory is not None or there is None:
        return {}
    key = f"{queue.removeprefix('mqtt.session.')}/"
    stored = world.store.references.get(there.lanes[0].id, {})
    texts = {reference.position: text_of(reference.message.body) for reference in stored.values()}
    for record in world.store.definitions.values():
        if isinstance(record, StatePut) and (record.namespace, record.key) == (OUTGOING, key) and record.value:
            pairs = dict(pairs_of(_decode(record.value, tuple[Run, ...])))
            return {texts[position]: packet_id for position, packet_id in pairs.items() if position in texts}
    return {}
