"""What does an MQTT client do to a broker, good-natured but unreliable?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.packets import (
    PUBACK,
    PUBLISH,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.splitter import Splitter
from tests.simulation.ledger import Sent, Shape
from tests.simulation.wires import SimConnection

if TYPE_CHECKING:
    from tests.simulation.world import World

MAX_INFLIGHT = 5
FILTERS = ("work/#", "work/+", "work/a", "last/#")


class MqttClient:
    """One client identifier, over all its connections.

    ``unconfirmed``: packet identifier -> text of what it published and has no PUBACK for. ``inflight``: what it received and has
    not acknowledged.
    """

    def __init__(self, name: str, world: World, *, clean: bool) -> None:
        self.name = name
        self.queue = f"mqtt.session.{name}"
        self.world = world
        self.clean = clean
        self.connection: SimConnection | None = None
        self.unconfirmed: dict[int, str] = {}
        self.count = 0
        self.kept = 0
        self._identifier = 0
        self._pending: dict[int, Subscribe | Unsubscribe] = {}
        self._texts: dict[str, tuple[str, bytes, bool]] = {}

    # -- coming and going

    def begin_life(self) -> None:
        """The broker was started anew; connections did not survive that."""
        self.connection = None

    def connect(self) -> None:
        world = self.world
        will = None
        if world.chance.random() < 0.3:
            self.count += 1
            text = f"{self.name}.will {self.count:06d}"
            will = Will("work/a", text.encode(), 1)
            world.ledger.submit(text, text.encode(), Sent(f"{self.name}.will", self.count, "work.a", delayed=True))
        if self.clean:
            self.forget_session()
        world.log(f"{self.name} connects")
        self.connection = world.mqtt.connect(self.name)
        self._splitter = Splitter()
        self.inflight: dict[int, tuple[str, bool]] = {}
        self._accepted = False
        self._pending.clear()
        self.connection.write(encode(Connect(self.name, self.clean, world.chance.choice((0, 5)), will)))

    def forget_session(self) -> None:
        self.world.ledger.shapes.pop(self.queue, None)

    def _send(self, packet: Publish | Ack | Subscribe | Unsubscribe | Signal) -> None:
        assert self.connection is not None
        self.connection.write(encode(packet))

    def _next_identifier(self) -> int:
        while True:
            self._identifier = self._identifier % 60_000 + 1
            if self._identifier not in self.unconfirmed and self._identifier not in self._pending:
                return self._identifier

    def vanish(self) -> None:
        if self.connection is not None:
            self.world.log(f"{self.name} vanishes")
            self.connection.hang_up()
            self.connection = None

    def leave(self) -> None:
        if self.connection is not None:
            self.world.log(f"{self.name} leaves")
            self._send(Disconnect())
            self.connection = None

    # -- what it does

    def act(self) -> None:  # noqa: C901 - a table of what may happen
        chance = self.world.chance
        if self.connection is None:
            self.connect()
            return
        self.read(chance.choice((0, 100, 1_000, 100_000, 100_000)))
        if self.connection is None or not self._accepted:
            return
        what = chance.random()
        if what < 0.5:
            for _ in range(chance.randrange(1, 12)):
                self.publish()
        elif what < 0.7:
            self.acknowledge()
        elif what < 0.78:
            self.vanish()
        elif what < 0.88:
            self.subscribe()
        elif what < 0.91:
            self.unsubscribe()
        elif what < 0.95:
            self.leave()
        elif what < 0.98:
            self.connect()  # the former connection is taken over

    def publish(self) -> None:
        chance = self.world.chance
        if len(self.unconfirmed) > 200:
            return
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        body = self.world.padded(text)
        qos = int(chance.random() < 0.8)
        retain = bool(qos) and chance.random() < 0.1
        topic = f"last/{self.name}" if retain else chance.choice(("work/a", "work/b"))
        sent = Sent(self.name, self.count, topic.replace("/", "."), persistent=bool(qos))
        self.world.ledger.submit(text, body, sent)
        packet_id = self._next_identifier() if qos else 0
        if qos:
            self.unconfirmed[packet_id] = text
            self._texts[text] = (topic, body, retain)
        self._send(Publish(topic, body, qos, retain, False, packet_id))

    def acknowledge(self, share: float = 0.8) -> None:
        """Send PUBACKs for some, in the order in which they came."""
        for packet_id, (text, is_retained) in list(self.inflight.items()):
            if self.world.chance.random() < share:
                del self.inflight[packet_id]
                self._send(Ack(PUBACK, packet_id))
                if not is_retained:
                    self.world.ledger.ack(self.queue, text)

    def subscribe(self) -> None:
        packet = Subscribe(
            self._next_identifier(), (Subscription(self.world.chance.choice(FILTERS), self.world.chance.choice((0, 1, 1))),)
        )
        self._pending[packet.packet_id] = packet
        self._weaken(packet.filters[0].pattern)
        self._send(packet)

    def unsubscribe(self) -> None:
        packet = Unsubscribe(self._next_identifier(), (self.world.chance.choice(FILTERS),))
        self._pending[packet.packet_id] = packet
        self._weaken(packet.filters[0])
        self._send(packet)

    def _weaken(self, pattern: str) -> None:
        """From now on nobody knows whether this subscription is there."""
        shape = self.world.ledger.shapes.get(self.queue)
        if shape is not None:
            shape.patterns.pop(pattern.replace("/", "."), None)
            self.world.ledger.unsure(self.queue)

    # -- what it receives

    def read(self, most: int) -> None:
        assert self.connection is not None
        self._splitter.feed(self.connection.read(most))
        while (frame := self._splitter.next()) is not None:
            self._receive(*frame)
        if self.connection.closed:
            self.world.log(f"{self.name} is closed")
            self.connection = None

    def _receive(self, head: int, payload: bytes) -> None:
        if head >> 4 == PUBLISH:
            self._received(head, payload)
            return
        packet = decode(head, payload)
        match packet:
            case ConnAck(session_present=present, code=code):
                if code:
                    self.world.log(f"{self.name} refused {code}")
                else:
                    self._begin(present)
            case Ack(type=type_, packet_id=packet_id) if type_ == PUBACK:
                text = self.unconfirmed.pop(packet_id)
                self.world.ledger.confirm(text)
                topic, _, retain = self._texts.pop(text)
                if retain:
                    self.world.ledger.retained[topic] = self.world.ledger.sent[text].index
            case SubAck(packet_id=packet_id, codes=codes):
                self._subscribed(packet_id, codes)
            case UnsubAck(packet_id=packet_id):
                self._pending.pop(packet_id)
            case _:
                raise AssertionError(packet)

    def _begin(self, present: bool) -> None:
        """Let in: send again what has no PUBACK."""
        ledger = self.world.ledger
        self._accepted = True
        self.world.log(f"{self.name} is let in {present}")
        if not self.clean:
            ledger.check(
                present or self.queue not in ledger.shapes or not ledger.shapes[self.queue].patterns, f"{self.queue} is lost"
            )
            ledger.shapes.setdefault(self.queue, Shape(exact=False))
        for packet_id, text in self.unconfirmed.items():
            topic, body, retain = self._texts[text]
            ledger.again(text, anew=True)
            self._send(Publish(topic, body, 1, retain, True, packet_id))
        if self.queue not in ledger.shapes or not ledger.shapes[self.queue].patterns:
            self.subscribe()

    def _subscribed(self, packet_id: int, codes: bytes) -> None:
        packet = self._pending.pop(packet_id)
        assert isinstance(packet, Subscribe)
        pattern = packet.filters[0].pattern
        others = [other for other in self._pending.values() if _concerns(other, pattern)]
        shape = self.world.ledger.shapes.get(self.queue)
        if shape is not None and codes[0] < 2 and not others:
            shape.patterns[pattern.replace("/", ".")] = codes[0]
        self.world.log(f"{self.name} has subscribed {pattern} {codes[0]}")

    def _received(self, head: int, payload: bytes) -> None:
        packet_size = 2 + int.from_bytes(payload[:2], "big")
        topic = payload[2:packet_size].decode()
        qos = head >> 1 & 3
        packet_id = int.from_bytes(payload[packet_size : packet_size + 2], "big") if qos else 0
        text = payload[packet_size + 2 * bool(qos) :].decode().partition("\n")[0]
        ledger = self.world.ledger
        is_retained = bool(head & 1)
        ledger.check(text in ledger.sent and ledger.sent[text].key == topic.replace("/", "."), f"{self.name} got {text} as {topic}")
        if qos:
            ledger.check(packet_id not in self.inflight, f"{self.name} got {text} under an identifier that is in flight")
            self.inflight[packet_id] = (text, is_retained)
            window = sum(one[1] is is_retained for one in self.inflight.values())
            ledger.check(window <= MAX_INFLIGHT, f"{self.name} has {window} in flight, {MAX_INFLIGHT} are allowed")
        if is_retained:
            self.world.log(f"{self.name} gets retained {text}")
        elif qos:
            ledger.delivered(self.queue, text, redelivered=bool(head & 8))
        else:
            self.world.log(f"{self.name} gets {text}")


def _concerns(packet: Subscribe | Unsubscribe, pattern: str) -> bool:
    return any(pattern == (entry.pattern if isinstance(entry, Subscription) else entry) for entry in packet.filters)
