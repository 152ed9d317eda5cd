"""What do all Majordomo peers of an endpoint share?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.api import (
    NO_PROPERTIES,
    TOPIC_EXCHANGE,
    Binding,
    BindingOptions,
    ConsumeOptions,
    Delivery,
    Gateway,
    GatewayError,
    Message,
    Outcome,
    Principal,
    QueueSpec,
)
from gateway_zeromq.mdp import translate
from gateway_zeromq.mdp.codec import Version
from gateway_zeromq.mdp.protocol import Client, Rules, Worker
from gateway_zeromq.mdp.services import Services, Terms
from gateway_zeromq.mdp.translate import Origin


class Port(Protocol):
    """The socket's side (`gateway_zeromq.endpoints.majordomo.MajordomoSpeech`)."""

    @property
    def refusing(self) -> bool:
        """The journal is behind: what is published is refused."""

    def touch(self, peer: Client | Worker) -> None:
        """There is something to be sent to it."""

    def violated(self, peer: Client | Worker, reason: str) -> None:
        """It broke the protocol."""

    def has_room(self) -> bool:
        """One more peer can be let in."""

    def client(self, origin: Origin) -> Client | None:
        """Return who asked, or whoever would have its name now; None: somebody who is no client has."""

    def note(self, event: str, key: str, reason: str) -> None:
        """Log something the first time that it happens with `key`."""


@dataclass(frozen=True, slots=True)
class Station:
    """What an endpoint is called in keys of replies, and how it treats requests.

    Args:
        endpoint, boot: see `Origin`.
        ttl_ms: how long a request may wait; 0: for ever.
        first_number: of requests; from there on they rise.
        rules, terms: of peers, and of services.
        max_joined_bytes: of the parts of a reply that are joined for a client of 0.1.
    """

    endpoint: str
    boot: str
    ttl_ms: int
    first_number: int
    rules: Rules
    terms: Terms
    max_joined_bytes: int


class Office:
    """What the peers of one user share: the channel that requests and replies are published on, and the services."""

    def __init__(self, gateway: Gateway, principal: Principal, terms: Terms, port: Port) -> None:
        self._gateway = gateway
        self._port = port
        self.principal = principal
        self.channel = gateway.open_channel(principal, self)
        self.services = Services(self.channel, terms)

    def on_outcomes(self, _through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: clients and workers have no command for a no, so it is counted and logged."""
        for outcome in exceptions:
            if outcome.error is not None:
                self._gateway.count("mdp_refused")
                self._port.note("request or reply refused", outcome.error.text, outcome.error.text)
            elif outcome.unroutable:
                self._gateway.count("mdp_unroutable")


class Majordomo:
    """What all Majordomo peers of an endpoint share.

    ``workers``: those that are registered. ``leaving``: workers whose queue has gone, to be told when that may be done.
    """

    def __init__(self, gateway: Gateway, principal: Principal, station: Station, port: Port) -> None:
        self.gateway = gateway
        self.station = station
        self.port = port
        self.workers: dict[Worker, None] = {}
        self.leaving: list[Worker] = []
        self._number = station.first_number
        self._offices: dict[Principal, Office] = {}
        self._channel = gateway.open_channel(principal)

    def office(self, principal: Principal) -> Office:
        """Return what a user's peers share."""
        office = self._offices.get(principal)
        if office is None:
            office = self._offices[principal] = Office(self.gateway, principal, self.station.terms, self.port)
        return office

    def next_number(self) -> int:
        """Return a number that no request of this start has."""
        self._number += 1
        return self._number

    async def start(self) -> None:
        """Take the replies of those who are no Majordomo workers. Raises: GatewayError. Cancellation: safe."""
        channel = self._channel
        info = (await channel.outcome(channel.declare_queue(QueueSpec("", durable=False, exclusive=True)))).result
        key = f"{translate.REPLIES}{self.station.endpoint}.#"
        await channel.outcome(channel.bind(Binding(TOPIC_EXCHANGE, info.name, key)))
        await channel.outcome(channel.consume(info.name, Answers(self), ConsumeOptions(no_ack=True)))

    def tend(self, now: float) -> None:
        """Say that the broker is alive, and goodbye to workers without a queue."""
        leaving, self.leaving = self.leaving, []
        for worker in leaving:
            worker.disconnect()
        for worker in self.workers:
            worker.beat(now)

    def sweep(self) -> None:
        """Forget services that nobody uses."""
        now_ms = self.gateway.now_ms()
        for office in self._offices.values():
            office.services.sweep(now_ms)

    def close(self) -> None:
        """Close the channels."""
        for office in self._offices.values():
            office.channel.close()
        self._channel.close()

    # -- replies

    def answer(self, origin: Origin, frames: Sequence[bytes], *, final: bool) -> None:
        """Send a client its reply, if it is there."""
        if origin.boot != self.station.boot and not origin.is_named:
            self.unclaimed(1)  # the name is another's now
            return
        client = self.port.client(origin)
        if client is None:
            self.unclaimed(1)
        elif final or client.version is Version.V02:
            client.answer(origin.service.encode(), frames, final=final)
        else:
            self.gateway.count("dropped", reason="a part of a reply, for a client of mdp/0.1")

    def unclaimed(self, count: int) -> None:
        """Replies are dropped, as those who asked have gone."""
        self.gateway.count("mdp_unclaimed", count)


class Answers:
    """The consumer of replies that come by the topic exchange (a `gateway.api.ConsumerSink`)."""

    def __init__(self, majordomo: Majordomo) -> None:
        self._majordomo = majordomo

    def deliver(self, delivery: Delivery) -> None:
        """Pass it on."""
        self.deliver_transient(delivery.message, None)

    def deliver_transient(self, message: Message, _options: BindingOptions | None) -> None:
        """Pass it on."""
        origin = translate.origin_of_key(message.routing_key)
        if origin is None or not origin.service:
            self._majordomo.gateway.count("dropped", reason="a reply to no client")
            return
        properties = self._majordomo.gateway.properties(message) if message.wire_tag else NO_PROPERTIES
        frames = translate.frames_of(message.body, multipart=properties.content_type == translate.MULTIPART)
        self._majordomo.answer(origin, frames, final=properties.type != translate.PARTIAL)

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`."""
        self._majordomo.port.note("replies of others don't arrive any more", "replies", reason.text)
