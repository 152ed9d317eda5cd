"""How is Majordomo spoken on a ROUTER socket?"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

import trio
import zmq

from gateway.api import ConfigError, GatewayError, Principal
from gateway_zeromq.endpoints.speech import Peer
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.mdp.bridge import ClientBridge, WorkerBridge
from gateway_zeromq.mdp.codec import DIALECTS, Role
from gateway_zeromq.mdp.desk import Majordomo, Station
from gateway_zeromq.mdp.protocol import Client, Rules, Worker
from gateway_zeromq.mdp.services import Place, Terms
from gateway_zeromq.mdp.translate import Origin, word
from gateway_zeromq.settings import RouterEndpoint
from gateway_zeromq.standing import State
from trio_zmq.pump import COPY_BELOW_BYTES, MORE, NOBLOCK, Oversized

_BOOT_BYTES = 9
_FIRST_BITS = 40


class Names(Protocol):
    """Who knows peers by name (`gateway_zeromq.endpoints.router.RouterSocket`)."""

    refusing: bool

    def touch(self, peer: Any) -> None:
        """There is something to be sent to it."""

    def violated(self, peer: Any, reason: str) -> None:
        """It broke the protocol."""

    def has_room(self) -> bool:
        """One more peer can be let in."""

    def known(self, name: bytes) -> Peer | None:
        """Return the peer of that name, if it was let in."""

    def address(self, peer: Peer, name: bytes) -> None:
        """Let a new peer stand for whoever has that name, until what it is told is sent."""


class MajordomoSpeech:
    """Majordomo 0.1 and 0.2, as far as an endpoint allows them (see `Speech`).

    Args:
        spot: the endpoint.
        names: its socket.
        principal: as whom replies of others are received.
    """

    peers: tuple[type, ...] = (Client, Worker)

    def __init__(self, spot: Spot, settings: RouterEndpoint, principal: Principal, names: Names) -> None:
        self._spot = spot
        self._names = names
        self._principal = principal
        self._dialects = {header: dialect for header, dialect in DIALECTS.items() if dialect.version.value in settings.protocols}
        self._station = station_of(spot.name, settings)
        self._majordomo = Majordomo(spot.gateway, principal, self._station, self)
        self.max_frames = settings.mdp_max_frames
        self.beat_s = settings.mdp_heartbeat_ms / 1000
        self.beat = self._majordomo.tend
        self.expire = self._majordomo.sweep
        self.close = self._majordomo.close
        self.touch = names.touch
        self.violated = names.violated
        self.has_room = names.has_room

    async def start(self) -> None:
        """See `Speech`."""
        try:
            await self._majordomo.start()
        except GatewayError as error:
            raise ConfigError(f"ZeroMQ endpoint {self._spot.name!r} can't have a queue for replies: {error.text}") from error

    def begins(self, header: bytes) -> bool:
        """See `Speech`."""
        return header in self._dialects

    def meet(self, name: bytes, header: bytes, principal: Principal, *, enveloped: bool) -> Peer:
        """See `Speech`."""
        role, version = self._dialects[header]
        rules = self._station.rules
        if role is Role.CLIENT:
            asking = ClientBridge(self._majordomo, principal, name)
            asking.peer = Client(asking, version, rules, enveloped=enveloped)
            return asking.peer
        offering = WorkerBridge(self._majordomo, principal)
        offering.peer = Worker(offering, version, rules, enveloped=enveloped)
        return offering.peer

    def turn_away(self, peer: Client | Worker, text: str) -> None:
        """See `Speech`."""
        peer.fail(text)
        peer.state = State.CLOSED

    def receive_more(self, peer: Client | Worker, frames: list[bytes], now: float) -> None:
        """See `Speech`."""
        peer.receive_frames(frames, now)

    def receive_too_much(self, peer: Client | Worker, oversized: Oversized, _now: float) -> None:
        """See `Speech`."""
        peer.fail(f"a message of {oversized.frames} frames and {oversized.body_bytes} bytes is too much")

    def write(self, send: Callable[..., Any], name: bytes, peer: Client | Worker) -> int:
        """See `Speech`: messages of any number of frames."""
        sent, enveloped = 0, peer.enveloped
        try:
            for frames in peer.out:
                send(name, MORE)
                if enveloped:
                    send(b"", MORE)
                last = len(frames) - 1
                for number, frame in enumerate(frames):
                    send(frame, MORE if number < last else NOBLOCK, len(frame) < COPY_BELOW_BYTES)
                sent += 1
        except zmq.Again:
            pass
        return sent

    def weigh(self, messages: list[list[bytes]]) -> int:
        """See `Speech`."""
        return sum(sum(map(len, frames)) for frames in messages)

    def is_told_by_name(self, peer: Client | Worker) -> bool:
        """See `Speech`: clients do not say that they are back, and may have asked already; workers begin with READY."""
        return isinstance(peer, Client)

    def pause(self, peer: Client | Worker) -> None:
        """See `Speech`: workers have one request at a time, and nothing else."""

    def resume(self, peer: Client | Worker) -> None:
        """See `Speech`."""

    def after_batch(self) -> None:
        """See `Speech`."""

    async def decided(self) -> None:
        """See `Speech`: nobody is told."""
        await trio.lowlevel.checkpoint()

    # -- `gateway_zeromq.mdp.desk.Port`

    @property
    def refusing(self) -> bool:
        """The journal is behind."""
        return self._names.refusing

    def client(self, origin: Origin) -> Client | None:
        """Return who asked, or whoever has its name now; None: that one is no client."""
        peer = self._names.known(origin.client)
        if peer is None:
            bridge = ClientBridge(self._majordomo, self._principal, origin.client)
            bridge.peer = Client(bridge, origin.dialect, self._station.rules, enveloped=origin.enveloped)
            self._names.address(bridge.peer, origin.client)
            return bridge.peer
        return peer if isinstance(peer, Client) and peer.version is origin.dialect else None

    def note(self, event: str, key: str, reason: str) -> None:
        """See `Port`."""
        self._spot.say_once(event, f"{event} {key}", reason=reason)


def station_of(name: str, settings: RouterEndpoint) -> Station:
    """Return what an endpoint is for its Majordomo peers. Every call is a start of its own."""
    beat_s = settings.mdp_heartbeat_ms / 1000
    rules = Rules(beat_s, settings.mdp_liveness, float(settings.mdp_busy_s), max(float(settings.session_ttl_s), 3 * beat_s))
    limit = {"x-max-length": settings.mdp_max_requests, "x-overflow": "reject-publish"}
    terms = Terms(
        durable=settings.mdp_durable,
        arguments={**limit, **settings.mdp_queue_arguments},
        most=settings.mdp_max_services,
        unused_ms=settings.mdp_service_ttl_s * 1000,
        places={service: Place(**place) for service, place in settings.mdp_services.items()},
    )
    return Station(
        endpoint=word(name),
        boot=secrets.token_urlsafe(_BOOT_BYTES),
        ttl_ms=settings.mdp_request_ttl_s * 1000,
        first_number=secrets.randbits(_FIRST_BITS),
        rules=rules,
        terms=terms,
        max_joined_bytes=settings.max_message_bytes,
    )
