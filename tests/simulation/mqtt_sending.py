"""What does an MQTT client publish, and what is it told of it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.codec.reasons import NO_MATCHING_SUBSCRIBERS
from tests.simulation.ledger import Sent

if TYPE_CHECKING:
    from tests.simulation.mqtt_client import MqttClient

MOST_UNCONFIRMED = 200
REFUSED = 0x80
MQTT_5 = 5


@dataclass(slots=True)
class Outgoing:
    """A message under a packet identifier. ``released``: its PUBREC came. ``life``: of the broker it was last sent to."""

    text: str
    topic: str
    body: bytes
    qos: int
    retain: bool
    expiry_s: int = 0
    released: bool = False
    life: int = 0


class Sending:
    """The publishing half of a client; it outlives connections, as the standard wants it.

    ``unconfirmed``: by packet identifier, in the order of the first publishes.
    """

    def __init__(self, client: MqttClient) -> None:
        self.client = client
        self.world = client.world
        self.unconfirmed: dict[int, Outgoing] = {}
        self.count = 0
        self.refused = False
        self._most = MOST_UNCONFIRMED
        self._aliases: dict[str, int] = {}
        self._known: set[int] = set()
        self._most_aliases = 0

    # -- coming back --------------------------------------------------------

    def begin(self, properties: Properties, *, present: bool) -> None:
        """Let in: send again what is not confirmed, as what it was if the session is there, else as something new."""
        self._aliases.clear()
        self._known.clear()
        self._most_aliases = min(properties.topic_alias_maximum or 0, 3)
        if properties.receive_maximum:
            self._most = min(properties.receive_maximum, MOST_UNCONFIRMED)
        if present:
            self._find_refused()
            for packet_id, outgoing in self.unconfirmed.items():
                self._resend(packet_id, outgoing)
        else:
            former, self.unconfirmed = self.unconfirmed, {}
            for outgoing in former.values():
                self._start_over(outgoing)
        self.refused = False

    def _find_refused(self) -> None:
        """What is not on disk, though a later one is, was refused; its client did not hear of that."""
        landed: set[str] = set()
        for outgoing in reversed(self.unconfirmed.values()):
            if outgoing.body in self.world.ledger.landed:
                landed.add(outgoing.topic)
            elif outgoing.topic in landed:
                self.world.books.loose.add(outgoing.text)

    def _resend(self, packet_id: int, outgoing: Outgoing) -> None:
        if outgoing.released:
            self.client.send(Ack(PUBREL, packet_id))
            return
        world = self.world
        unknown = self.refused or outgoing.life != world.books.life or not world.is_calm
        anew = outgoing.qos == 1 or not world.books.is_once(outgoing.text)
        # What is on disk is so together with its identifier, but for the dead letters of what was refused.
        if unknown and (outgoing.body not in world.ledger.landed or world.buries_refused or world.storms):
            anew = True
            if outgoing.life in world.books.rough or not world.is_calm:
                # Refused when nobody was there to be told, though somebody had it already and kept it: it is published again.
                world.books.times[outgoing.text] += 1
            if outgoing.life == world.books.life or not world.is_calm:
                world.books.loose.add(outgoing.text)
        world.ledger.again(outgoing.text, anew=anew)
        self._send(packet_id, outgoing, dup=True)

    def doubt(self) -> None:
        """The session may be another one, so that what is sent again is published again."""
        for outgoing in self.unconfirmed.values():
            self.world.books.times[outgoing.text] += 1

    def _start_over(self, outgoing: Outgoing) -> None:
        world = self.world
        if outgoing.released or (outgoing.qos == 2 and world.chance.random() < 0.5):
            world.log(f"{self.client.name} lets go of {outgoing.text}")
            return
        world.ledger.again(outgoing.text, anew=True)
        world.books.times[outgoing.text] += 1
        packet_id = self.client.next_identifier()
        self.unconfirmed[packet_id] = outgoing
        self._send(packet_id, outgoing, dup=False)

    # -- publishing ---------------------------------------------------------

    def _topic(self) -> tuple[str, int, bool]:
        """Return topic, QoS and RETAIN flag."""
        chance = self.world.chance
        what = chance.random()
        qos = chance.choice((0, 1, 1, 2, 2))
        if what < 0.08:
            return f"last/{self.client.name}", 1, True
        if what < 0.14:
            return f"flag/{self.client.name}", qos, chance.random() < 0.5
        if what < 0.3:
            return chance.choice(("pool/a", "pool/b")), qos, False
        if what < 0.4:
            return "own/x", qos, False
        return chance.choice(("work/a", "work/b")), qos, False

    def publish(self) -> None:
        if len(self.unconfirmed) >= self._most:
            return
        world = self.world
        topic, qos, retain = self._topic()
        self.count += 1
        text = f"{self.client.name} {self.count:06d}"
        body = world.padded(text)
        expires = self.client.level == MQTT_5 and topic.startswith("work") and world.chance.random() < 0.08
        expiry_s = world.chance.choice((1, 3)) if expires else 0
        key = topic.replace("/", ".")
        facts = {"persistent": qos > 0, "mortal": expires, "ordered": not topic.startswith("pool"), "qos": qos, "retain": retain}
        sent = Sent(self.client.name, self.count, key, expiry_s=expiry_s, **facts)
        world.ledger.submit(text, body, sent)
        if self.client.no_local and topic == "own/x":
            sent.expected = tuple(queue for queue in sent.expected if queue != self.client.queue)
        world.books.times[text] += 1
        outgoing = Outgoing(text, topic, body, qos, retain, expiry_s)
        packet_id = 0
        if qos:
            packet_id = self.client.next_identifier()
            self.unconfirmed[packet_id] = outgoing
        self._send(packet_id, outgoing, dup=False)

    def _send(self, packet_id: int, outgoing: Outgoing, *, dup: bool) -> None:
        outgoing.life = self.world.books.life
        topic, properties = outgoing.topic, NO_PROPERTIES
        if self.client.level == MQTT_5:
            topic, alias = self._alias(topic)
            if alias or outgoing.expiry_s:
                properties = Properties(message_expiry_s=outgoing.expiry_s or None, topic_alias=alias or None)
        self.client.send(Publish(topic, outgoing.body, outgoing.qos, outgoing.retain, dup, packet_id, properties))

    def _alias(self, topic: str) -> tuple[str, int]:
        if len(self._aliases) < self._most_aliases:
            self._aliases.setdefault(topic, len(self._aliases) + 1)
        alias = self._aliases.get(topic, 0)
        if alias in self._known:
            return "", alias
        if alias:
            self._known.add(alias)
        return topic, alias

    # -- answers ------------------------------------------------------------

    def answered(self, packet: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP."""
        check = self.world.ledger.check
        outgoing = self.unconfirmed.get(packet.packet_id)
        who = f"{self.client.name}: answer {packet.type} under {packet.packet_id}"
        check(outgoing is not None, f"{who} for nothing")
        assert outgoing is not None
        expected = PUBACK if outgoing.qos == 1 else PUBCOMP if outgoing.released else PUBREC
        check(packet.type == expected, f"{who} for {outgoing}")
        if packet.type != PUBREC or packet.code >= REFUSED:
            del self.unconfirmed[packet.packet_id]
        if packet.type != PUBCOMP:
            self._decided(outgoing, packet)

    def _decided(self, outgoing: Outgoing, packet: Ack) -> None:
        ledger = self.world.ledger
        if packet.code >= REFUSED:
            ledger.refuse(outgoing.text)
            return
        if packet.code == NO_MATCHING_SUBSCRIBERS:
            expected = ledger.sent[outgoing.text].expected
            ledger.check(not expected, f"{outgoing.text} matched no subscription, not even {expected}")
        ledger.confirm(outgoing.text)
        if outgoing.topic.startswith("last/"):
            ledger.retained[outgoing.topic] = ledger.sent[outgoing.text].index
        if packet.type == PUBREC:
            outgoing.released = True
            self.client.send(Ack(PUBREL, packet.packet_id))
