"""What does MQTT promise beyond what every queue does: once, to one, and in which order?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.ledger import Ledger, Shape

if TYPE_CHECKING:
    from tests.simulation.mqtt_client import MqttClient
    from tests.simulation.wires import SimConnection

EXACTLY = 2
KEPT_SHARE = "$share/g/pool/a"
"""Its members' sessions last, or they take QoS 1: nothing is lost."""
LOOSE_SHARE = "$share/h/pool/b"
"""Anybody may be a member: what is sent with QoS 2 to a session that does not last may be lost with it."""
SHARES = {"pool.a": "mqtt.share.g.pool/a", "pool.b": "mqtt.share.h.pool/b"}
"""Routing key -> queue of the shared subscription that takes it; no other subscription does."""


def is_open(connection: SimConnection) -> bool:
    """Neither side has ended it."""
    return connection.reason is None and not connection._hung_up


@dataclass(slots=True)
class Holder:
    """Which member a shared message was sent to. ``exactly``: with QoS 2. ``lasting``: its session lasts.

    ``over``: connections that were ended when it was read, from which their clients may still read what came before that end.
    """

    client: MqttClient
    connection: SimConnection
    life: int
    exactly: bool
    lasting: bool
    over: set[SimConnection] = field(default_factory=set)


class Books:
    """What is known of the messages of MQTT clients.

    ``times``: how often a message was published, as far as its publisher is concerned: what is sent again in the same session is
    the same one. ``loose``: what was refused once, and may have been overtaken. ``rough``: lives in which the disk has failed, so
    that something may have been refused.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.life = 0
        self.times: Counter[str] = Counter()
        self.loose: set[str] = set()
        self.rough: set[int] = set()
        self._holders: dict[str, Holder] = {}
        self._members: dict[str, set[str]] = {}
        self._last: dict[tuple[str, str, str], int] = {}

    def begin_life(self, *, after_calm: bool) -> None:
        """A broker starts. `after_calm`: the disk of the one before has not failed."""
        if not after_calm:
            self.rough.add(self.life)
        self.life += 1

    def is_once(self, text: str) -> bool:
        return self.times[text] <= 1

    # -- QoS 2 --------------------------------------------------------------

    def taken(self, client: MqttClient, text: str, taken: set[str]) -> None:
        """A session's client takes a message of QoS 2. `taken`: what it took before in this session."""
        if not self.is_once(text):
            return
        self.ledger.check(text not in taken, f"{client.name} was sent {text} with QoS 2, which it has")
        taken.add(text)
        sent = self.ledger.sent[text]
        if sent.qos < EXACTLY or not sent.ordered or text in self.loose:
            return
        where = (client.queue, sent.publisher, sent.key)
        last = self._last.get(where, -1)
        self.ledger.check(last < sent.index, f"{client.name} was sent {text} with QoS 2 out of order, after {last}")
        self._last[where] = sent.index

    def begins_anew(self, client: MqttClient) -> None:
        """A client knows nothing of what it took, in a session that may be the one of which it was: that may come again."""
        for where in [where for where in self._last if where[0] == client.queue]:
            del self._last[where]

    # -- shared subscriptions -----------------------------------------------

    def shared(self, client: MqttClient, text: str, *, exactly: bool) -> None:
        """A member reads a message that it does not have.

        What it reads from a connection that the broker had ended before another member read the same message was sent to it
        earlier, and went to that one because of the end: it is the former holder, though it comes last.
        """
        assert client.connection is not None
        holder = Holder(client, client.connection, self.life, exactly, client.lasting)
        other = self._holders.get(text)
        is_late = other is not None and holder.connection in other.over
        if other is not None and self.is_once(text) and self.ledger.sent[text].submissions <= 1:
            former, latter = (holder, other) if is_late else (other, holder)
            self._check_holder(former, latter.client, text)
        if not is_late:
            connections = [each.connection for each in client.world.mqtt_clients if each.connection is not None]
            holder.over = {connection for connection in connections if not is_open(connection)}
            self._holders[text] = holder

    def _check_holder(self, former: Holder, client: MqttClient, text: str) -> None:
        both = f"{client.name} was sent {text} of a shared subscription"
        there = former.life == self.life and is_open(former.connection)
        self.ledger.check(not there, f"{both}, which {former.client.name} has")
        if former.exactly and former.client is not client:
            may = not former.lasting and former.life != self.life  # a broker that dies knows nothing of such a session
            self.ledger.check(may, f"{both}, which {former.client.name} got with QoS 2")

    def joins(self, pattern: str, client: MqttClient) -> None:
        """A lasting session is a member of the shared subscription that loses nothing."""
        if pattern == KEPT_SHARE and client.lasting:
            self._members.setdefault(pattern, set()).add(client.name)
            self.ledger.shapes.setdefault(SHARES["pool.a"], Shape(patterns={"pool.a": 1}, exact=False, tidy=False))

    def parts(self, client: MqttClient) -> None:
        """A client may be a member no more: without members there is no queue."""
        members = self._members.get(KEPT_SHARE, set())
        if client.name in members:
            members.discard(client.name)
            if not members:
                self.ledger.forgive(SHARES["pool.a"])
                self.ledger.shapes.pop(SHARES["pool.a"], None)

    def session_ends(self, client: MqttClient) -> None:
        """What it had of a shared subscription with QoS 2 is gone: nobody else may get it [MQTT5-4.8.2-5]."""
        self.parts(client)
        queue = SHARES["pool.a"]
        for text, sent in self.ledger.sent.items():
            if sent.key == "pool.a" and sent.qos == EXACTLY:
                self.ledger.excused[queue].add(text)

    def gather(self, left: dict[str, list[str]]) -> None:
        """Count what was moved into a session as still being the shared subscription's."""
        moved = []
        for queue, texts in left.items():
            if queue.startswith("mqtt.session."):
                moved += [text for text in texts if self.ledger.sent[text].key == "pool.a"]
        left.setdefault(SHARES["pool.a"], []).extend(moved)
