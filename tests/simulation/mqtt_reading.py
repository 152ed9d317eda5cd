"""What is an MQTT client sent, and is that what it was promised?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from gateway.api import swap_key
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish
from gateway_mqtt.codec.properties import Properties
from tests.simulation.ledger import matches
from tests.simulation.mqtt_books import SHARES

if TYPE_CHECKING:
    from tests.simulation.mqtt_client import MqttClient

MQTT_5 = 5
UNKNOWN = 0x92
UNWANTED = 0x83
Answer = Callable[["Reading", int, str], None]


class Reading:
    """The subscribing half of a client.

    What outlives connections as the session does: ``incoming``: by packet identifier, what came with QoS 2 and is not released.
    ``taken``: all that ever came with QoS 2. ``promised``: the identifier under which a message of QoS 1 has to come again.

    What is of one connection: ``open_ids``: not answered for good. ``unacked``: of QoS 1. ``todo``: answers that are due.
    """

    def __init__(self, client: MqttClient) -> None:
        self.client = client
        self.world = client.world
        self.ledger = client.world.ledger
        self.incoming: dict[int, str] = {}
        self.taken: set[str] = set()
        self.promised: dict[str, int] = {}
        self.unacked: dict[int, str] = {}
        self.open_ids: set[int] = set()
        self.todo: list[tuple[int, int, str]] = []
        self._answered: set[str] = set()
        self._rejected: set[str] = set()
        self._completing: set[int] = set()
        self._aliases: dict[int, str] = {}
        self.most = 0
        self.most_aliases = 0
        self.wants_retained = False
        self.retained_now: dict[str, int] = {}

    def begin(self, *, present: bool) -> None:
        """Let in."""
        if present:
            self.promised.update({text: packet_id for packet_id, text in self.unacked.items()})
        else:
            self.wants_retained = False
            for state in (self.incoming, self.taken, self.promised, self._answered, self._rejected):
                state.clear()
        for state in (self.unacked, self.open_ids, self.todo, self._completing, self._aliases):
            state.clear()

    def begin_life(self, known: dict[str, int]) -> None:
        """A broker starts. `known`: which messages of QoS 1 the journal says to be in flight, and under which identifiers."""
        self.unacked.clear()
        self.promised = known

    # -- messages -----------------------------------------------------------

    def received(self, packet: Publish) -> None:
        topic = self._topic(packet)
        text = packet.payload.decode().partition("\n")[0]
        check, name = self.ledger.check, self.client.name
        sent = self.ledger.sent.get(text)
        check(sent is not None and sent.key == topic.replace("/", "."), f"{name} was sent {text} as {topic}")
        self._check_properties(text, topic, packet.properties)
        is_retained = self._is_retained(packet, text, topic)
        if topic.startswith("will/"):
            self.world.testaments.came(text)
        if topic == "own/x" and self.client.no_local:
            check(not text.startswith(f"{name} "), f"{name} was sent its own {text}")
        if not packet.qos:
            check(not packet.dup, f"{name} was sent {text} with QoS 0 and DUP")
            self.world.log(f"{name} gets {text}")
            return
        self._open(packet.packet_id, text)
        if packet.qos == 1:
            self._received_one(packet, text, is_retained=is_retained)
        else:
            self._received_two(packet, text, is_retained=is_retained)

    def _topic(self, packet: Publish) -> str:
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        self.ledger.check(alias <= self.most_aliases, f"{self.client.name} was sent topic alias {alias}")
        if packet.topic:
            self._aliases[alias] = packet.topic
        self.ledger.check(alias in self._aliases, f"{self.client.name} was sent topic alias {alias}, which was not set")
        return self._aliases[alias]

    def _check_properties(self, text: str, topic: str, properties: Properties) -> None:
        sent, client = self.ledger.sent[text], self.client
        expiry_s = properties.message_expiry_s
        right = expiry_s is None if not sent.mortal else expiry_s is not None or client.level < MQTT_5
        right = right and (not sent.expiry_s or self.world.clock_was_set or 0 <= (expiry_s or 0) <= sent.expiry_s)
        self.ledger.check(right, f"{client.name} was sent {text} with an expiry of {expiry_s}, not {sent.expiry_s}")
        for number in properties.subscription_ids:
            pattern = client.pattern_of(number)
            pattern = pattern.split("/", 2)[2] if pattern is not None and pattern.startswith("$share/") else pattern
            right = pattern is not None and any(matches(swap_key(pattern), key) for key in (swap_key(topic), sent.copies))
            self.ledger.check(right, f"{client.name} was sent {text} ({topic}) for subscription {number}: {pattern}")

    def _is_retained(self, packet: Publish, text: str, topic: str) -> bool:
        check, name = self.ledger.check, self.client.name
        if topic.startswith("flag/"):
            right = packet.retain == (self.client.keeps_flags and self.ledger.sent[text].retain)
            check(right, f"{name} was sent {text} with RETAIN {packet.retain}")
            return False
        check(not packet.retain or self.wants_retained, f"{name} was sent the retained {text}, which it did not ask for")
        if topic.startswith("last/"):
            self.retained_now[topic] = max(self.retained_now.get(topic, 0), self.ledger.sent[text].index)
        return packet.retain

    def _open(self, packet_id: int, text: str) -> None:
        check, name = self.ledger.check, self.client.name
        check(packet_id not in self.open_ids, f"{name} was sent {text} under {packet_id}, which is in flight")
        check(packet_id not in self._completing, f"{name} was sent {text} under {packet_id}, which is not completed")
        self.open_ids.add(packet_id)
        check(len(self.open_ids) <= self.most, f"{name} has {len(self.open_ids)} in flight, {self.most} are allowed")

    def _received_one(self, packet: Publish, text: str, *, is_retained: bool) -> None:
        packet_id, name = packet.packet_id, self.client.name
        check = self.ledger.check
        check(
            packet_id not in self.incoming, f"{name} was sent {text} under {packet_id}, which is {self.incoming.get(packet_id)}'s"
        )
        self.todo.append((PUBACK, packet_id, "" if is_retained else text))
        if is_retained:
            self.world.log(f"{name} gets retained {text}")
            return
        key = self.ledger.sent[text].key
        if key in SHARES:
            self.world.log(f"{name} gets shared {text}")
            self.world.books.shared(self.client, text, exactly=False)
            return
        self.unacked[packet_id] = text
        former = self.promised.pop(text, packet_id)
        if self.ledger.sent[text].submissions == 1:
            check(former == packet_id, f"{name} was sent {text} again under {packet_id}, it was {former}")
        self.ledger.delivered(self.client.queue, text, redelivered=packet.dup, consumer=f"{name} 1")

    def _received_two(self, packet: Publish, text: str, *, is_retained: bool) -> None:
        packet_id, name = packet.packet_id, self.client.name
        check = self.ledger.check
        known = self.incoming.get(packet_id)
        self.todo.append((PUBREC, packet_id, text))
        if known is not None:
            check(known == text, f"{name} was sent {text} under {packet_id}, which is {known}'s")
            check(packet.dup, f"{name} was sent {text} again without DUP")
            return
        self.incoming[packet_id] = text
        self.world.log(f"{name} takes {text} {is_retained}")
        if is_retained:
            self._answered.add(text)  # it belongs to the connection: a PUBREL may come for it on the next one
            return
        if text not in self._rejected:
            self.world.books.taken(self.client, text, self.taken)
        if (share := SHARES.get(self.ledger.sent[text].key)) is not None:
            self.world.books.shared(self.client, text, exactly=True)
            self.ledger.ack(share, text)
            if not self.client.lasting:
                self._answered.add(text)
            return
        self.ledger.delivered(self.client.queue, text, redelivered=packet.dup, consumer=f"{name} 2")

    def released(self, packet: Ack) -> None:
        """PUBREL."""
        text = self.incoming.pop(packet.packet_id, None)
        if text is not None:
            may = text in self._answered or self.ledger.sent[text].mortal
            self.ledger.check(may, f"{self.client.name}: PUBREL for {text}, which has no PUBREC")
        self.world.log(f"{self.client.name} is released {packet.packet_id} {text}")
        self._completing.add(packet.packet_id)
        self.todo.append((PUBCOMP, packet.packet_id, "" if text is None else text))

    # -- answers ------------------------------------------------------------

    def answer(self, share: float = 0.8) -> None:
        """Send some of the answers that are due; those of QoS 2 in their order."""
        rest: list[tuple[int, int, str]] = []
        waits = False
        for item in self.todo:
            late = self.world.chance.random() >= share or (waits and item[0] != PUBACK)
            if late:
                waits = waits or item[0] != PUBACK
                rest.append(item)
            else:
                self._answers[item[0]](self, item[1], item[2])
        self.todo = rest

    def _rejects(self) -> bool:
        return self.client.rejects and self.world.chance.random() < 0.03

    def _acknowledge(self, packet_id: int, text: str) -> None:
        self.open_ids.discard(packet_id)
        self.unacked.pop(packet_id, None)
        if not text:
            self.client.send(Ack(PUBACK, packet_id))
            return
        queue = SHARES.get(self.ledger.sent[text].key, self.client.queue)
        if self._rejects():
            self.ledger.reject(queue, text)
            self.client.send(Ack(PUBACK, packet_id, UNWANTED))
            return
        self.ledger.ack(queue, text)
        self.client.send(Ack(PUBACK, packet_id))

    def _receive(self, packet_id: int, text: str) -> None:
        queue = self.client.queue
        if text not in self._answered and self._rejects():
            self.ledger.reject(queue, text)
            self._rejected.add(text)
            self.taken.discard(text)
            self.incoming.pop(packet_id, None)
            self.open_ids.discard(packet_id)
            self.client.send(Ack(PUBREC, packet_id, UNWANTED))
            return
        self._answered.add(text)
        self.ledger.ack(queue, text)
        self.client.send(Ack(PUBREC, packet_id))

    def _complete(self, packet_id: int, text: str) -> None:
        self._completing.discard(packet_id)
        self.open_ids.discard(packet_id)
        self.client.send(Ack(PUBCOMP, packet_id, 0 if text or self.client.level < MQTT_5 else UNKNOWN))

    _answers: ClassVar[dict[int, Callable[[Reading, int, str], None]]] = {
        PUBACK: _acknowledge,
        PUBREC: _receive,
        PUBCOMP: _complete,
    }
