"""What does the gateway do for one Majordomo client, and for one worker?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api import (
    DEFAULT_EXCHANGE,
    TOPIC_EXCHANGE,
    BindingOptions,
    Channel,
    ConsumeOptions,
    Delivery,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Overloaded,
    Principal,
    ProtocolViolation,
)
from gateway_zeromq.mdp import translate
from gateway_zeromq.mdp.codec import MMI, Request, Version, service_of
from gateway_zeromq.mdp.desk import Majordomo
from gateway_zeromq.mdp.protocol import Client, Worker
from gateway_zeromq.mdp.translate import WIRE_TAG, Origin

FOUND, NOT_FOUND, NOT_IMPLEMENTED = b"200", b"404", b"501"
"""RFC 8/MMI."""
AGAIN_MS = 1_000
"""A request whose reply the disk has no room for is done again, not sooner."""
ONE = ConsumeOptions(prefetch=1)
"""Workers have one request at a time (RFC 7, Overall Topology)."""


class ClientBridge:
    """Between one client and the services: a `ClientSink`."""

    __slots__ = ("_majordomo", "_name", "_principal", "peer")

    peer: Client
    """Whose bridge it is; set by whoever makes both."""

    def __init__(self, majordomo: Majordomo, principal: Principal, name: bytes) -> None:
        self._majordomo = majordomo
        self._principal = principal
        self._name = name

    def touch(self) -> None:
        """See `protocol.Sink`."""
        self._majordomo.port.touch(self.peer)

    def violated(self, reason: str) -> None:
        """See `protocol.Sink`."""
        self._majordomo.port.violated(self.peer, reason)

    def admit(self) -> bool:
        """See `protocol.ClientSink`."""
        if self._majordomo.port.has_room():
            return True
        self._majordomo.gateway.count("mdp_refused")
        self._majordomo.port.note("request refused", "room", "too many clients are connected")
        return False

    def unclaimed(self, count: int) -> None:
        """See `protocol.ClientSink`."""
        self._majordomo.unclaimed(count)

    def request(self, command: Request) -> None:
        """See `protocol.ClientSink`: publish it, with all that is needed to answer."""
        if command.service.startswith(MMI):
            self.peer.answer(command.service.encode(), [self._manage(command)], final=True)
            return
        try:
            self._publish(command)
        except GatewayError as error:
            self._majordomo.gateway.count("mdp_refused")
            self._majordomo.port.note("request refused", error.text, error.text)

    def _manage(self, command: Request) -> bytes:
        """Answer for the broker (RFC 8/MMI)."""
        if command.service != "mmi.service":
            return NOT_IMPLEMENTED
        try:
            name = service_of(self.peer.version, command.body[-1])
        except ProtocolViolation:
            return NOT_FOUND
        if name.startswith(MMI):
            return FOUND if name == "mmi.service" else NOT_FOUND
        services = self._majordomo.office(self._principal).services
        return FOUND if services.is_served(name) else NOT_FOUND

    def _publish(self, command: Request) -> None:
        majordomo, peer = self._majordomo, self.peer
        if majordomo.port.refusing:
            majordomo.gateway.count("mdp_refused")
            return
        station, now_ms = majordomo.station, majordomo.gateway.now_ms()
        office = majordomo.office(self._principal)
        service = office.services.find(command.service, now_ms)
        body, multipart = translate.body_of(command.body)
        wire = translate.encode_origin(
            Origin(
                station.endpoint,
                station.boot,
                self._name,
                1 if peer.version is Version.V01 else 2,
                peer.enveloped,
                command.service,
                majordomo.next_number(),
                multipart,
            )
        )
        expires_at_ms = now_ms + station.ttl_ms if station.ttl_ms else 0
        route = service.route
        durable = station.terms.durable
        office.channel.publish(route, Message(route.address, body, durable, translate.WIRE_TAG, wire, 0, expires_at_ms))


class WorkerBridge:
    """Between one worker and its service's queue: a `WorkerSink`, a `ConsumerSink` and an `OutcomeSink`."""

    __slots__ = ("_channel", "_consuming", "_held", "_joined", "_joined_bytes", "_majordomo", "_principal", "peer")

    peer: Worker
    """Whose bridge it is; set by whoever makes both."""

    def __init__(self, majordomo: Majordomo, principal: Principal) -> None:
        self._majordomo = majordomo
        self._principal = principal
        self._channel: Channel | None = None
        self._consuming = 0
        self._held: Delivery | None = None
        self._joined: list[bytes] = []
        self._joined_bytes = 0

    def touch(self) -> None:
        """See `protocol.Sink`."""
        self._majordomo.port.touch(self.peer)

    def violated(self, reason: str) -> None:
        """See `protocol.Sink`."""
        self._majordomo.port.violated(self.peer, reason)

    # -- coming and going

    def register(self, service: str) -> None:
        """See `protocol.WorkerSink`."""
        majordomo = self._majordomo
        if not majordomo.port.has_room():
            raise Overloaded("too many peers are connected")
        services = majordomo.office(self._principal).services
        found = services.find(service, majordomo.gateway.now_ms())
        services.make(found)
        majordomo.workers[self.peer] = None
        self._channel = majordomo.gateway.open_channel(self._principal, self)
        self._consuming = self._channel.consume(found.queue, self, ONE)

    def refused(self, reason: str) -> None:
        """See `protocol.WorkerSink`."""
        self._majordomo.gateway.count("mdp_refused")
        self._majordomo.port.note("worker refused", f"{self.peer.service} {reason}", reason)

    def on_outcomes(self, _through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: a worker that can't consume is sent away; replies that are refused are counted."""
        for outcome in exceptions:
            if outcome.error is None:
                continue
            self.refused(outcome.error.text)
            if outcome.number == self._consuming:
                self._majordomo.leaving.append(self.peer)

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`: the queue was deleted; the worker is to register again."""
        self.refused(reason.text)
        self._majordomo.leaving.append(self.peer)

    def ended(self) -> None:
        """See `protocol.WorkerSink`: what it has not answered goes back to its place in the queue."""
        self._majordomo.workers.pop(self.peer, None)
        self._held = None
        self._joined = []
        if self._channel is not None:
            self._channel.close()

    # -- requests

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`."""
        self._held = delivery
        self._joined, self._joined_bytes = [], 0
        address = b"%d" % self._majordomo.next_number()
        self.peer.ask(address, self._frames(delivery.message))

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`: nobody could say whether it was answered."""
        self._majordomo.gateway.count("dropped", reason="a service's queue keeps no transient messages")

    def _frames(self, message: Message) -> list[bytes]:
        if message.wire_tag == WIRE_TAG:
            return translate.frames_of(message.body, multipart=translate.origin_of(message.wire).multipart)
        properties = self._majordomo.gateway.properties(message)
        return translate.frames_of(message.body, multipart=properties.content_type == translate.MULTIPART)

    # -- replies

    def answer(self, body: list[bytes], *, final: bool) -> None:
        """See `protocol.WorkerSink`."""
        held = self._held
        if held is None:  # its queue was deleted
            return
        message = held.message
        if final:
            self._held = None
        if message.wire_tag == WIRE_TAG:
            origin = translate.origin_of(message.wire)
            if origin.endpoint == self._majordomo.station.endpoint:
                self._answer_client(origin, held, body, final=final)
                return
            exchange, key = TOPIC_EXCHANGE, translate.reply_key(origin)
        else:
            exchange, key = DEFAULT_EXCHANGE, self._majordomo.gateway.properties(message).reply_to or ""
        self._answer_other(exchange, key, held, body, final=final)

    def _answer_client(self, origin: Origin, held: Delivery, body: list[bytes], *, final: bool) -> None:
        """Answer a Majordomo client; one of 0.1 gets all parts as one reply, as it can have no more than one."""
        if origin.dialect is Version.V01 and (self._joined or not final):
            self._join(body)
            body = self._joined
        if final or origin.dialect is Version.V02:
            self._majordomo.answer(origin, body, final=final)
        if final:
            self._settle(held)

    def _join(self, body: list[bytes]) -> None:
        self._joined_bytes += sum(map(len, body)) + len(body)
        if self._joined_bytes <= self._majordomo.station.max_joined_bytes:
            self._joined += body
        else:
            self._majordomo.gateway.count("dropped", reason="too large a reply in parts, for a client of mdp/0.1")

    def _answer_other(self, exchange: str, key: str, held: Delivery, body: list[bytes], *, final: bool) -> None:
        """Publish a reply to where whoever asked wants it; request and reply change places in one commit."""
        channel = self._channel
        assert channel is not None
        if not key:
            if final:
                self._settle(held)
            return
        try:
            route = channel.route(exchange, key)
            asked = self._majordomo.gateway.properties(held.message)
            reply = translate.reply_message(route.address, held.message, asked, body, final=final)
            if not final:
                channel.publish(route, reply)
                return
            error = channel.move(held, route, reply)
        except GatewayError as refusal:
            error = refusal
        if isinstance(error, Overloaded) and final:
            self.refused(error.text)
            channel.nack(held, requeue=True, delay_ms=AGAIN_MS)
        elif error is not None:
            self._majordomo.unclaimed(1)
            if final:
                self._settle(held)

    def _settle(self, held: Delivery) -> None:
        assert self._channel is not None
        try:
            self._channel.ack(held)
        except NotFound:  # its queue was deleted meanwhile
            self._majordomo.gateway.count("acks_without_delivery")
