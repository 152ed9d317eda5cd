"""Which will has to come, which may, and which must not?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway_mqtt.codec.packets import Will
from gateway_mqtt.codec.properties import Properties
from tests.simulation.ledger import Sent

if TYPE_CHECKING:
    from tests.simulation.mqtt_client import MqttClient
    from tests.simulation.world import World


@dataclass(slots=True)
class Testament:
    """One will of one connection.

    ``alive_ms``: the latest time (of the broker's clock) at which its connection was there. ``early``: it may come before its delay
    is over, as its session may have ended. ``held``: it was accepted. ``must``: nothing can keep it from coming. ``never``: it has
    been taken back, or its client came back in time. ``refusable``: memory was short while it was waited for: it may have been
    refused, as any other message.
    """

    text: str
    body: bytes
    client: MqttClient
    delay_ms: int
    lasting: bool
    alive_ms: int
    early: bool = False
    held: bool = False
    lost: bool = False
    left: bool = False
    must: bool = False
    never: bool = False
    came: bool = False
    refusable: bool = False


class Testaments:
    """All wills. They go to ``will/#``, where a queue takes them that is never full."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = world.ledger
        self.by_text: dict[str, Testament] = {}

    def write(self, client: MqttClient, number: int) -> tuple[Testament, Will]:
        """Make a will for a connection that is about to be made."""
        chance = self.world.chance
        text = f"{client.name}.will {number:06d}"
        delay_s = chance.choice((0, 0, 1, 4)) if client.level == 5 else 0
        qos = chance.choice((1, 2))
        key = f"will.{client.name}"
        self.ledger.submit(text, text.encode(), Sent(f"{client.name}.will", number, key, delayed=True, qos=qos))
        delay_ms = round(min(delay_s * 1_000, client.belief.expiry_ms))
        testament = Testament(text, text.encode(), client, delay_ms, client.lasting, self.world.engine.now_ms)
        self.watch([testament])
        self.by_text[text] = testament
        self.world.books.times[text] += 1
        properties = Properties(will_delay_s=delay_s) if delay_s else Properties()
        return testament, Will(key.replace(".", "/"), text.encode(), qos, chance.random() < 0.1, properties)

    def came(self, text: str) -> None:
        """Somebody was sent a will."""
        testament = self.by_text.get(text)
        if testament is None:
            return
        client = testament.client
        client.belief.look()
        self.ledger.check(not testament.never, f"the will {text} came, though it was taken back")
        testament.came = True
        if client.testament is testament and client.is_alive:
            self.ledger.check(False, f"the will {text} came, though its client is there")
        # A session that its client was not told of may not be on disk in whole: after a kill it is over, and its will is due.
        if not testament.early and (testament.held or not self.world.storms):
            latest_ms = max(self.world.rules.latest_ms, self.world.engine.now_ms)
            due_ms = testament.alive_ms + testament.delay_ms
            self.ledger.check(latest_ms >= due_ms, f"the will {text} came at {latest_ms}, its delay ends at {due_ms}")

    def clock_was_set(self) -> None:
        """A delay is over sooner or later than it seems."""
        for testament in self.by_text.values():
            testament.early = True

    def begin_life(self, testaments: Iterable[Testament], since_ms: int) -> None:
        """A broker has started, whose clock may be behind that of the last one: for it their clients are lost since then."""
        for testament in testaments:
            testament.alive_ms = min(testament.alive_ms, since_ms)

    def watch(self, testaments: Iterable[Testament]) -> None:
        """While memory is short, or about to be, all messages are refused, whoever publishes them."""
        if self.world.resident or self.world.broker.alarms.level:
            for testament in testaments:
                testament.refusable = True

    def is_there(self, testament: Testament) -> bool:
        ledger = self.ledger
        return testament.came or testament.body in ledger.landed or testament.text in ledger.acked["wills"]

    def taken_back(self, testament: Testament) -> None:
        """The broker has read a DISCONNECT, and all is on disk: if the will has not come yet it never does."""
        if not self.is_there(testament):
            self.world.log(f"{testament.text} is taken back")
            testament.never = True

    def audit(self) -> None:
        """All is over: what had to come is there."""
        for testament in self.by_text.values():
            missed = testament.must and not testament.refusable and not self.is_there(testament)
            self.ledger.check(not missed, f"the will {testament.text} has not come")
