"""Where is each message of QoS 2 on its way to a client?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from gateway.api import BindingOptions, Channel, Delivery, Gateway, Message, NotFound, Outcome
from gateway_mqtt.codec.names import MQTT_5, NAMES, PUBCOMP, broken
from gateway_mqtt.outbound.pulse import Pulse
from gateway_mqtt.session import Session
from gateway_mqtt.store import SessionStore

Expect = Callable[[int, Callable[[Outcome], None]], None]
"""``(number, then)``: have `then` called with the outcome of what was submitted just now."""

REFUSED: Final = 0x80
"""Reason codes from here on say no."""
UNKNOWN: Final = 0x92
DUP: Final = 8


WAITING: Final = 0
"""Its identifier is on its way to the disk; the PUBLISH was not sent."""
SENT: Final = 1
KNOWN: Final = 2
"""It was sent on an earlier connection, and its entry has not come again yet."""
RELEASING: Final = 3
"""PUBREC came; the acknowledgement is on its way to the disk."""
RELEASED: Final = 4
"""PUBREL was sent."""
OVER: Final = 5


class Handshake:
    """One packet identifier of QoS 2.

    ``delivery``: None if it belongs to no queue, or is not held on this connection. ``number``: of the barrier that tells when
    it is on disk; 0: none yet.
    """

    __slots__ = ("delivery", "message", "number", "options", "packet_id", "position", "retain", "stage")

    def __init__(self, packet_id: int, position: int, stage: int) -> None:
        self.packet_id: int = packet_id
        self.position: int = position
        self.stage: int = stage
        self.delivery: Delivery | None = None
        self.message: Message | None = None
        self.options: BindingOptions | None = None
        self.retain: bool = False
        self.number: int = 0


class Wire(Protocol):
    """Who sends."""

    def transmit(self, shake: Handshake, flags: int) -> None:
        """Send a PUBLISH of QoS 2. `flags`: DUP, or nothing."""

    def emit(self, packet: bytes) -> None:
        """Send what is no message, behind the messages that were sent before."""

    def identify(self, delivery: Delivery | None) -> int:
        """Return a free packet identifier; it is in use from now on."""

    def reply(self, data: bytes) -> None:
        """Send what is no message, and belongs to none."""

    def uncredited(self, change: int) -> None:
        """So many identifiers more, or less, are in use that the queue's credit does not count."""


class ExactlyOnce:
    """QoS 2 towards one client [MQTT-4.3.3-1]: PUBLISH, PUBREC, PUBREL, PUBCOMP.

    Where the session lasts, the identifier and its entry are on disk before the PUBLISH is sent, and the entry's acknowledgement
    together with the identifier's release before the PUBREL is; one barrier a turn for all of them. Whoever dies between any two
    steps goes on with the same identifier: with the PUBLISH (DUP), or with the PUBREL. It is a `Flushable` and `Beating`.
    """

    __slots__ = (
        "_barriers", "_channel", "_expect", "_fresh", "_gateway", "_gone", "_items", "_known", "_level", "_open", "_owed", "_pulse",
        "_session", "_store", "_wire",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        gateway: Gateway,
        channel: Channel,
        session: Session[Delivery],
        wire: Wire,
        level: int,
        pulse: Pulse,
        store: SessionStore | None,
        expect: Expect | None,
    ) -> None:
        self._gateway: Gateway = gateway
        self._channel: Channel = channel
        self._session: Session[Delivery] = session
        self._wire: Wire = wire
        self._level: int = level
        self._pulse: Pulse = pulse
        self._store: SessionStore | None = store if store is not None and store.lasts and expect is not None else None
        self._expect: Expect | None = expect
        self._items: dict[int, Handshake] = {}
        self._known: dict[int, Handshake] = {}
        self._owed: deque[Handshake] = deque()
        self._fresh: bool = False
        self._gone: list[Handshake] = []
        self._barriers: int = 0
        self._open: bool = False
        if self._store is not None:
            self._resume(self._store)

    def has(self, packet_id: int) -> bool:
        """Say whether an identifier is in use for a message of QoS 2."""
        return packet_id in self._items

    def was_sent(self, position: int) -> bool:
        """Say whether an entry was sent on an earlier connection."""
        return position in self._known

    # -- from an earlier connection -----------------------------------------

    def _resume(self, store: SessionStore) -> None:
        """Go on with what is not done with: PUBRELs at once, PUBLISHes as their entries come [MQTT-4.4.0-1]."""
        for packet_id, sent in list(store.kept.outgoing.items()):
            shake = Handshake(packet_id, sent.position, RELEASING if sent.released else KNOWN)
            self._items[packet_id] = shake
            self._session.reserve(packet_id)
            if sent.released:
                self._session.reserved -= 1
                self._wire.uncredited(1)
                self._owe(shake)
            elif sent.position:
                self._known[sent.position] = shake
            else:  # it belonged to no queue: nothing will bring it again
                self._gone.append(shake)

    def open(self) -> None:
        """The CONNACK is on its way: what waited may be sent."""
        self._open = True
        if self._owed or self._gone:
            self._gateway.touch(self)

    def leave(self) -> None:
        """The connection has ended: what was never sent needs no identifier. Before the channel is closed."""
        self._open = False  # its turn may still come: nothing is written any more
        self._pulse.leave(self)
        store = self._store
        if store is None:
            return
        for shake in self._items.values():
            if shake.stage == WAITING:
                store.completed(shake.packet_id)

    # -- out ----------------------------------------------------------------

    def deliver(self, delivery: Delivery, message: Message, options: BindingOptions | None) -> None:
        """Send an entry of the session's queue; it keeps its credit until its PUBREC. Does not call the channel."""
        shake = self._known.pop(delivery.position, None) if self._known else None
        if shake is not None and delivery.redelivered:
            shake.delivery, shake.message, shake.options = delivery, message, options
            shake.stage = SENT
            self._session.reserved -= 1
            self._wire.transmit(shake, DUP)
            return
        if self._known and not delivery.redelivered:
            self._not_coming()
        self._begin(delivery.position, delivery, message, options, retain=False)

    def send_loose(self, message: Message, options: BindingOptions | None, *, retain: bool) -> None:
        """Send what belongs to no queue: it has no credit, and does not come again."""
        self._wire.uncredited(1)
        self._begin(0, None, message, options, retain=retain)

    def _begin(
        self, position: int, delivery: Delivery | None, message: Message, options: BindingOptions | None, *, retain: bool
    ) -> None:
        shake = Handshake(self._wire.identify(None), position, WAITING)
        shake.delivery, shake.message, shake.options, shake.retain = delivery, message, options, retain
        self._items[shake.packet_id] = shake
        if self._store is None:
            shake.stage = SENT
            self._wire.transmit(shake, 0)
        else:
            self._owe(shake)

    def _not_coming(self) -> None:
        """New entries come: what was sent before and has not come again has expired, or was purged.

        The client may have it: only a PUBREL makes its identifier good for another message.
        """
        self._gone += self._known.values()
        self._known.clear()
        self._gateway.touch(self)

    def _owe(self, shake: Handshake) -> None:
        shake.number = 0
        self._owed.append(shake)
        if not self._fresh:
            self._fresh = True
            if self._open:
                self._gateway.touch(self)

    # -- the disk -----------------------------------------------------------

    def flush(self) -> None:
        """Have all that was begun in this turn written, and ask once when it is."""
        if not self._open or self._store is None:
            return
        gone, self._gone = self._gone, []
        for shake in gone:
            self._release(shake, self._store)
        if not self._fresh:
            return
        self._fresh = False
        for shake in self._unasked():
            if shake.stage == WAITING:
                self._store.sending(shake.packet_id, shake.position)
                if shake.delivery is not None and shake.delivery.message.expires_at_ms:
                    shake.delivery.spare()  # [MQTT5-4.3.3-7]
        self._ask()

    def _unasked(self) -> list[Handshake]:
        """Return those that no barrier was asked for yet: the last ones, in order."""
        found: list[Handshake] = []
        for shake in reversed(self._owed):
            if shake.number:
                break
            found.append(shake)
        found.reverse()
        return found

    def _ask(self) -> None:
        number = self._channel.barrier()
        for shake in self._unasked():
            shake.number = number
        self._barriers += 1
        assert self._expect is not None
        self._expect(number, self._on_disk)

    def _on_disk(self, outcome: Outcome) -> None:
        """Send what has waited for the disk, in order. What could not be written waits on: it is asked again after a while."""
        self._barriers -= 1
        if outcome.error is not None:
            self._pulse.join(self)
            return
        owed = self._owed
        while owed and 0 < owed[0].number <= outcome.number:
            shake = owed.popleft()
            if shake.stage == WAITING:
                shake.stage = SENT
                self._wire.transmit(shake, 0)
            elif shake.stage == RELEASING:
                self._send_release(shake)

    def beat(self) -> int:
        """Ask again."""
        if self._owed and not self._barriers:
            self._ask()
        return len(self._owed)

    # -- back ---------------------------------------------------------------

    def received(self, packet_id: int, code: int) -> bool:
        """PUBREC: the client has it, or (a code from 0x80 on) rejects it. Return False: the identifier is none of QoS 2."""
        shake = self._items.get(packet_id)
        if shake is None:
            return False
        if shake.stage == RELEASED:
            self._wire.emit(pubrel(packet_id, 0))
        elif shake.stage != SENT:
            pass  # an answer to an earlier connection's packet: this one's is still to be sent
        elif code >= REFUSED:
            self._reject(shake)
        else:
            self._acknowledge(shake)
        return True

    def _acknowledge(self, shake: Handshake) -> None:
        """Settle the entry and release the identifier, in one commit; then PUBREL."""
        delivery, shake.delivery, shake.message, shake.options = shake.delivery, None, None, None
        shake.stage = RELEASING
        if self._store is not None:
            self._store.released(shake.packet_id, shake.position)
            self._owe(shake)
        else:
            self._send_release(shake)
        if delivery is None:
            return
        self._wire.uncredited(1)  # before the credit comes back
        try:
            self._channel.ack(delivery)
        except NotFound:
            self._gateway.count("late_acks")

    def _release(self, shake: Handshake, store: SessionStore) -> None:
        """Finish what will not come again."""
        shake.stage = RELEASING
        self._session.reserved -= 1
        self._wire.uncredited(1)
        store.released(shake.packet_id, shake.position)
        self._owe(shake)

    def _reject(self, shake: Handshake) -> None:
        """The client does not want it: dead-letter it. The handshake is over [MQTT5-4.3.3-4]."""
        delivery = shake.delivery
        self._gateway.count("rejected")
        self._end(shake)
        if delivery is None:
            self._wire.uncredited(-1)
            return
        with suppress(NotFound):
            self._channel.nack(delivery, requeue=False)

    def completed(self, packet_id: int) -> None:
        """PUBCOMP: the identifier is free. An answer to an earlier connection's PUBREL says nothing.

        Raises:
            MalformedPacket: there is no PUBREC yet.
        """
        shake = self._items.get(packet_id)
        if shake is None:
            return
        if shake.stage == SENT:
            raise wrong_answer(self._level, PUBCOMP, 2)  # [MQTT-4.8.0-1]
        if shake.stage == RELEASED:
            self._end(shake)
            self._wire.uncredited(-1)

    def drop(self, shake: Handshake) -> None:
        """It can't be sent after all. Who transmits it settles its delivery."""
        loose = shake.delivery is None
        self._end(shake)
        if loose:
            self._wire.uncredited(-1)

    def _end(self, shake: Handshake) -> None:
        shake.stage = OVER
        shake.delivery = shake.message = shake.options = None
        del self._items[shake.packet_id]
        self._session.inflight.pop(shake.packet_id, None)
        if self._store is not None:
            self._store.completed(shake.packet_id)

    def _send_release(self, shake: Handshake) -> None:
        shake.stage = RELEASED
        self._wire.emit(pubrel(shake.packet_id, 0))

    def unknown(self, packet_id: int, code: int) -> None:
        """PUBREC for an identifier that is not in use for QoS 2: the client may let go of it."""
        if code < REFUSED and packet_id not in self._session.inflight:
            self._wire.reply(pubrel(packet_id, UNKNOWN if self._level == MQTT_5 else 0))


def pubrel(packet_id: int, code: int) -> bytes:
    """Return a PUBREL."""
    if code:
        return bytes((0x62, 3, packet_id >> 8, packet_id & 0xFF, code))
    return bytes((0x62, 2, packet_id >> 8, packet_id & 0xFF))


def wrong_answer(level: int, kind: int, qos: int) -> Exception:
    """Return the error for an answer that is not what the message waits for."""
    return broken(
        level, f"{NAMES[kind]} for a message of QoS {qos} that waits for another answer", "[MQTT-4.8.0-1]", "5 §4.13.1", 0x82
    )
