"""What does an MQTT client do to a broker, good-natured but unreliable?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api import swap_key
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.names import SERVER
from gateway_mqtt.codec.packets import (
    PUBREL,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.codec.splitter import Splitter
from tests.simulation.ledger import Shape
from tests.simulation.mqtt_books import KEPT_SHARE, LOOSE_SHARE, is_open
from tests.simulation.mqtt_reading import Reading
from tests.simulation.mqtt_sending import Sending
from tests.simulation.mqtt_session import SessionBelief, journaled_identifiers
from tests.simulation.testaments import Testament
from tests.simulation.wires import SimConnection

if TYPE_CHECKING:
    from tests.simulation.world import World

MAX_INFLIGHT = 5
MQTT_5 = 5
FILTERS = ("work/#", "work/+", "work/a", "last/#", "flag/#", "own/#", "will/#", KEPT_SHARE, LOOSE_SHARE)
LIKELY = (0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 7, 8, 8)
FAILED = 0x80
WITH_WILL = 4


class MqttClient:
    """One client identifier, over all its connections.

    Args:
        expiry_s: how long its sessions outlive a connection; None: for ever; 0: not at all.
        level: of the protocol.

    ``testament``: the will of the present connection, or of the last one.
    """

    def __init__(self, name: str, world: World, *, level: int, expiry_s: int | None) -> None:
        self.name = name
        self.queue = f"mqtt.session.{name}"
        self.world = world
        self.level = level
        self.expiry_s = expiry_s
        self.lasting = expiry_s != 0
        self.no_local = self.keeps_flags = level == MQTT_5
        self.rejects = level == MQTT_5 and world.chance.random() < 0.4
        self.identifies = level == MQTT_5 and world.chance.random() < 0.7
        self.connection: SimConnection | None = None
        self.testament: Testament | None = None
        self._wills: list[Testament] = []
        self._will_count = 0
        self._identifier = 0
        self.pending: dict[int, Subscribe | Unsubscribe] = {}
        self.sending = Sending(self)
        self.reading = Reading(self)
        self.belief = SessionBelief(self)
        self.accepted = False
        self.refusals = 0
        self._unanswered = 0
        self._clean = False
        self._said_goodbye = False

    # -- coming and going

    def begin_life(self) -> None:
        """The broker was started anew; connections did not survive that."""
        self.gone()
        self.belief.begin_life()
        self.reading.begin_life(journaled_identifiers(self.world, self.queue))

    def gone(self) -> None:
        """There is no connection any more."""
        self.connection = None
        if self.testament is not None and not self.testament.left:
            self.testament.lost = True

    @property
    def is_alive(self) -> bool:
        """Its connection was let in and has not been ended by anybody."""
        return self.connection is not None and self.accepted and is_open(self.connection)

    def connect(self, *, clean: bool | None = None) -> None:
        world = self.world
        self.gone()
        self._clean = clean if clean is not None else (not self.lasting or self.belief.lost or world.chance.random() < 0.06)
        if self.level < MQTT_5:
            self._clean = not self.lasting
        if self._clean:
            self.belief.ends()
        self.testament = will = None
        if world.chance.random() < 0.4:
            self._will_count += 1
            self.testament, will = world.testaments.write(self, self._will_count)
            self._wills.append(self.testament)
        for former in self._wills:
            former.early = former.early or (self._clean and former is not self.testament)
        world.log(f"{self.name} connects {self._clean}")
        self.connection = world.mqtt.connect(self.name)
        self._unanswered += 1
        self.belief.connects()
        self._splitter = Splitter(level=self.level)
        self.accepted = False
        self._said_goodbye = False
        self.pending.clear()
        self.reading.most = MAX_INFLIGHT
        properties = self._asks() if self.level == MQTT_5 else NO_PROPERTIES
        keep_alive_s = world.chance.choice((0, 5))
        self.send(Connect(self.name, self._clean, keep_alive_s, will, level=self.level, properties=properties))

    def _asks(self) -> Properties:
        chance = self.world.chance
        most = chance.choice((1, 2, 3, 5, None))
        self.reading.most = min(most or MAX_INFLIGHT, MAX_INFLIGHT)
        self.reading.most_aliases = chance.choice((0, 1, 3))
        expiry_s = 0xFFFFFFFF if self.expiry_s is None else self.expiry_s or None
        return Properties(session_expiry_s=expiry_s, receive_maximum=most, topic_alias_maximum=self.reading.most_aliases or None)

    def send(self, packet: Packet) -> None:
        assert self.connection is not None
        self.connection.write(encode(packet, self.level))

    def next_identifier(self) -> int:
        while True:
            self._identifier = self._identifier % 60_000 + 1
            if self._identifier not in self.sending.unconfirmed and self._identifier not in self.pending:
                return self._identifier

    def vanish(self) -> None:
        if self.connection is not None:
            self.world.log(f"{self.name} vanishes")
            self.connection.hang_up()
            self.gone()

    def leave(self) -> None:
        if self.connection is None:
            return
        code = WITH_WILL if self.level == MQTT_5 and self.world.chance.random() < 0.3 else 0
        self.world.log(f"{self.name} leaves {code}")
        self.send(Disconnect(code))
        if self.testament is not None and not code:
            self.testament.left = True
        self.belief.leaves()
        self.gone()

    # -- what it does

    def act(self) -> None:  # noqa: C901 - a table of what may happen
        chance = self.world.chance
        if self.connection is None:
            self.connect()
            return
        self.read(chance.choice((0, 100, 1_000, 100_000, 100_000)))
        if self.connection is None or not self.accepted:
            return
        what = chance.random()
        if what < 0.42:
            for _ in range(chance.randrange(1, 12)):
                self.sending.publish()
        elif what < 0.7:
            self.reading.answer()
        elif what < 0.78:
            self.vanish()
        elif what < 0.89:
            self.subscribe()
        elif what < 0.92:
            self.unsubscribe()
        elif what < 0.95:
            self.leave()
        elif what < 0.98:
            self.connect()  # the former connection is taken over

    # -- subscriptions

    def pattern_of(self, number: int) -> str | None:
        """Return the topic filter that it has subscribed to with this identifier."""
        return FILTERS[number - 1] if self.identifies and 1 <= number <= len(FILTERS) else None

    def subscribe(self, pattern: str | None = None) -> None:
        chance = self.world.chance
        wanted = pattern or FILTERS[chance.choice(LIKELY)]
        qos = chance.choice((0, 1, 1, 2, 2))
        if wanted == KEPT_SHARE:
            qos = chance.choice((1, 2)) if self.lasting else 1
        handling = 0
        if self.level == MQTT_5:
            handling = 2 if wanted.startswith("flag") else 0 if pattern else chance.choice((0, 0, 1, 2))
        else:
            self.reading.wants_retained = True
        if wanted.startswith("flag") and self.level < MQTT_5:
            return  # below 5 there is no telling what was retained from what comes live
        shared = wanted.startswith("$share")
        asked = Subscription(wanted, qos, self.no_local and wanted == "own/#", self.keeps_flags and "flag" in wanted, handling)
        if shared and handling:
            asked = Subscription(wanted, qos)
        self.reading.wants_retained |= handling < 2 and not shared
        properties = Properties(subscription_ids=(FILTERS.index(wanted) + 1,)) if self.identifies else NO_PROPERTIES
        packet = Subscribe(self.next_identifier(), (asked,), properties)
        self.pending[packet.packet_id] = packet
        if not shared:
            self._weaken(wanted)
        self.send(packet)

    def unsubscribe(self) -> None:
        packet = Unsubscribe(self.next_identifier(), (self.world.chance.choice(FILTERS),))
        self.pending[packet.packet_id] = packet
        if packet.filters[0] == KEPT_SHARE:
            self.world.books.parts(self)
        self._weaken(packet.filters[0])
        self.send(packet)

    def _weaken(self, pattern: str) -> None:
        """From now on nobody knows whether this subscription is there."""
        shape = self.world.ledger.shapes.get(self.queue)
        if shape is not None:
            shape.patterns.pop(swap_key(pattern), None)
            self.world.ledger.unsure(self.queue)

    def _subscribed(self, packet: SubAck) -> None:
        asked = self.pending.pop(packet.packet_id)
        assert isinstance(asked, Subscribe)
        pattern, code = asked.filters[0].pattern, packet.codes[0]
        others = [other for other in self.pending.values() if _concerns(other, pattern)]
        self.world.log(f"{self.name} has subscribed {pattern} {code}")
        self.world.ledger.check(code in {asked.filters[0].qos, FAILED, 0x97}, f"{self.name}: SUBACK {code} for {asked}")
        shape = self.world.ledger.shapes.get(self.queue)
        if code >= FAILED or others:
            return
        if pattern.startswith("$share"):
            self.world.books.joins(pattern, self)
        elif shape is not None:
            shape.patterns[swap_key(pattern)] = code

    # -- what it receives

    def read(self, most: int) -> None:
        assert self.connection is not None
        self._splitter.feed(self.connection.read(most))
        while (frame := self._splitter.next()) is not None:
            self._receive(decode(*frame, self.level, SERVER))
        if self.connection.closed:
            self.world.log(f"{self.name} is closed")
            self.sending.refused = True
            self.gone()

    def _receive(self, packet: Packet) -> None:
        check = self.world.ledger.check
        check(not self._said_goodbye, f"{self.name} was sent {packet} after a DISCONNECT")
        check(self.accepted != isinstance(packet, ConnAck), f"{self.name} was sent {packet}, accepted: {self.accepted}")
        match packet:
            case Publish():
                self.reading.received(packet)
            case ConnAck(session_present=present, code=code, properties=properties):
                self._connected(code, properties, present=present)
            case Ack(type=type_) if type_ == PUBREL:
                self.reading.released(packet)
            case Ack():
                self.sending.answered(packet)
            case SubAck():
                self._subscribed(packet)
            case UnsubAck(packet_id=packet_id):
                self.pending.pop(packet_id)
            case Disconnect(code=code):
                check(self.level == MQTT_5, f"{self.name} was sent a DISCONNECT")
                self._said_goodbye = True
                self.world.log(f"{self.name} is told goodbye {code:#x}")
            case _:
                raise AssertionError(packet)

    def _connected(self, code: int, properties: Properties, *, present: bool) -> None:
        if code:
            self.world.log(f"{self.name} refused {code}")
            self.refusals += 1
            return
        self.accepted = True
        self.world.log(f"{self.name} is let in {present}")
        if self.belief.lost and present:
            self.sending.doubt()
            self.reading.begin(present=False)
            self.world.books.begins_anew(self)
        self.belief.connected(clean=self._clean, present=present)
        self._settle_wills(present=present)
        if self.lasting:
            self.world.ledger.shapes.setdefault(self.queue, Shape(exact=False))
        self.reading.begin(present=present)
        self.sending.begin(properties, present=present)
        shape = self.world.ledger.shapes.get(self.queue)
        if shape is None or not shape.patterns:
            self.subscribe()

    def _settle_wills(self, *, present: bool) -> None:
        """Now it is known which of the former wills have to come, and which must not."""
        for will in self._wills:
            if will is self.testament:
                will.held = True
            elif will.held and will.lost:
                due = not will.delay_ms or (not present and self._unanswered == 1)  # else the broker may have seen it back in time
                will.must = due and will.lasting and self.world.keeps_wills
                in_time = will.delay_ms and self.belief.peak_ms < will.alive_ms + will.delay_ms
                will.never = will.never or bool(present and not will.early and not will.came and in_time)
        self._wills = [self.testament] if self.testament is not None else []
        self._unanswered = 0

    def watch(self, now_ms: int) -> None:
        """To be called after every step."""
        if self.is_alive and self.testament is not None:
            self.testament.alive_ms = now_ms
        self.belief.watch(now_ms)

    def took_leave(self) -> None:
        """The broker has read its DISCONNECT, and all is on disk."""
        for will in self._wills:
            if will.left:
                self.world.testaments.taken_back(will)


def _concerns(packet: Subscribe | Unsubscribe, pattern: str) -> bool:
    return any(pattern == (entry.pattern if isinstance(entry, Subscription) else entry) for entry in packet.filters)
