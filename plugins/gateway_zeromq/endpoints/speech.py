"""What does a ROUTER socket ask of a protocol that is spoken on it, and how does TGP/1 answer?

The first frame that a peer sends decides which protocol it speaks. From then on the socket knows the peer by name and calls
it: what a protocol is asked per message is `Peer.receive` alone; everything else is asked once in a while, or of unusual messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import zmq

from gateway.api import Principal
from gateway_zeromq.mdp.codec import DIALECTS
from gateway_zeromq.settings import RouterEndpoint
from gateway_zeromq.standing import State
from gateway_zeromq.tgp import protocol as tgp
from gateway_zeromq.tgp.bridge import Bridge, Desk, Port
from gateway_zeromq.tgp.replies import REFUSED, SYNTAX, Rules
from trio_zmq.pump import COPY_BELOW_BYTES, MORE, NOBLOCK, Oversized


class Peer(Protocol):
    """Who speaks on a ROUTER socket, from its first message on.

    ``out``: what is to be sent, in order, for `Speech.write`; ``epoch``: how often it was let in. It is known by its name as long
    as it is READY; what it is told while it is GREETING is kept within a rate.
    """

    state: State
    epoch: int
    enveloped: bool
    heartbeat_s: float
    out: list[Any]
    out_bytes: int

    def receive(self, header: bytes, body: bytes | None, now: float) -> None:
        """Take a message of one or two frames."""

    def tick(self, now: float) -> bool:
        """Look whether it is alive; False: it is not, and has been ended."""

    def excuse(self, late_s: float, now: float) -> None:
        """Before `tick`: this side was kept from listening for so long."""

    def unreachable(self) -> None:
        """What waits for it can't be sent."""

    def goodbye(self, code: int, text: str) -> None:
        """Tell it that the server ends this, and end."""

    def end(self) -> None:
        """It is gone: give back what it holds. Again: nothing happens."""


class Speech(Protocol):
    """One protocol on one ROUTER socket.

    ``peers``: the classes of its peers. ``max_frames``: frames of a message, without those that name and envelope it.
    ``beat_s``: the interval of `beat`; it may be a quarter late.
    """

    peers: tuple[type, ...]
    max_frames: int
    beat_s: float

    async def start(self) -> None:
        """Do what must be done before anybody can connect. Raises: ConfigError. Cancellation: safe."""

    def begins(self, header: bytes) -> bool:
        """Say whether somebody who begins so speaks this protocol."""

    def meet(self, name: bytes, header: bytes, principal: Principal, *, enveloped: bool) -> Peer:
        """Return a peer for somebody of whom nothing is known."""

    def turn_away(self, peer: Any, text: str) -> None:
        """Tell somebody who was just met why it is not listened to, and end."""

    def receive_more(self, peer: Any, frames: list[bytes], now: float) -> None:
        """Take a message of more than two frames; they are within ``max_frames``, or another protocol's here."""

    def receive_too_much(self, peer: Any, oversized: Oversized, now: float) -> None:
        """Take notice of a message that broke the limits; nothing of it is left."""

    def write(self, send: Callable[..., Any], name: bytes, peer: Any) -> int:
        """Send what waits for a peer; return how many messages of it libzmq took.

        A ROUTER says no to names alone: when it has taken one it takes all frames, also of a peer that goes meanwhile.

        Raises: ZMQError, but for `zmq.Again`.
        """

    def weigh(self, messages: list[Any]) -> int:
        """Return what messages of a peer's ``out`` count in its ``out_bytes``."""

    def is_told_by_name(self, peer: Any) -> bool:
        """Say whether who is back under the name of a peer that has gone is told what waits for that one."""

    def pause(self, peer: Any) -> None:
        """It has too much to read: deliver nothing."""

    def resume(self, peer: Any) -> None:
        """Undo `pause`."""

    def after_batch(self) -> None:
        """Messages were taken, and this turn's end is near."""

    def beat(self, now: float) -> None:
        """Say what must be said at regular intervals, however much comes in."""

    def expire(self) -> None:
        """Forget what nobody came back for."""

    async def decided(self) -> None:
        """Wait until all that was published is decided, and its publishers are told. Cancellation: safe."""

    def close(self) -> None:
        """Close what is not a peer's."""


class TgpSpeech:
    """TGP/1 (see `Speech`).

    Args:
        desk: what all TGP peers share.
        port: the socket.
        settings: of the endpoint.
    """

    peers: tuple[type, ...] = (tgp.Peer,)
    max_frames = 2

    def __init__(self, desk: Desk, port: Port, settings: RouterEndpoint) -> None:
        self._desk = desk
        self._port = port
        self._rules = rules_of(settings)
        self.beat_s = settings.heartbeat_ms / 1000
        self.after_batch = desk.marks.keep
        self.expire = desk.expire
        self.decided = desk.decided

    async def start(self) -> None:
        """See `Speech`."""

    def begins(self, header: bytes) -> bool:
        """See `Speech`: whoever speaks no other protocol, as TGP/1 says in words what is wrong. Majordomo could not read them."""
        return header not in DIALECTS

    def meet(self, _name: bytes, _header: bytes, principal: Principal, *, enveloped: bool) -> tgp.Peer:
        """See `Speech`."""
        bridge = Bridge(self._desk, self._port, principal, self._rules)
        bridge.peer = tgp.Peer(bridge, self._rules, enveloped=enveloped)
        return bridge.peer

    def turn_away(self, peer: tgp.Peer, text: str) -> None:
        """See `Speech`."""
        peer.fail(REFUSED, text)

    def receive_more(self, peer: tgp.Peer, frames: list[bytes], now: float) -> None:
        """See `Speech`."""
        self.receive_too_much(peer, Oversized(len(frames), 0), now)

    def receive_too_much(self, peer: tgp.Peer, oversized: Oversized, _now: float) -> None:
        """See `Speech`."""
        peer.fail(SYNTAX, f"a message of {oversized.frames} frames; header and body are allowed")

    def write(self, send: Callable[..., Any], name: bytes, peer: tgp.Peer) -> int:
        """See `Speech`: headers, and bodies where there are any."""
        sent, enveloped = 0, peer.enveloped
        try:
            for header, body in peer.out:
                send(name, MORE)
                if enveloped:
                    send(b"", MORE)
                if body is None:
                    send(header, NOBLOCK)
                else:
                    send(header, MORE)
                    send(body, NOBLOCK, len(body) < COPY_BELOW_BYTES)
                sent += 1
        except zmq.Again:
            pass
        return sent

    def weigh(self, messages: list[tuple[bytes, bytes | None]]) -> int:
        """See `Speech`."""
        return sum(len(header) + len(body or b"") for header, body in messages)

    def is_told_by_name(self, _peer: tgp.Peer) -> bool:
        """See `Speech`: who is back has to begin with a HELLO, and is told nothing before."""
        return False

    def pause(self, peer: tgp.Peer) -> None:
        """See `Speech`."""
        for consumer in peer.deliveries.consumers:
            consumer.pause()

    def resume(self, peer: tgp.Peer) -> None:
        """See `Speech`."""
        for consumer in peer.deliveries.consumers:
            consumer.resume()

    def beat(self, now: float) -> None:
        """See `Speech`: clients are asked only when they are silent."""

    def close(self) -> None:
        """See `Speech`."""


def rules_of(settings: RouterEndpoint) -> Rules:
    """Return what the TGP peers of an endpoint may do."""
    return Rules(
        heartbeat_ms=settings.heartbeat_ms,
        max_credit=settings.max_credit,
        max_credit_bytes=settings.max_credit_bytes,
        max_consumers=settings.max_consumers,
        max_body_bytes=settings.max_message_bytes,
        max_unconfirmed=settings.max_unconfirmed,
        max_unconfirmed_bytes=settings.max_unconfirmed_bytes,
        quiet_s=max(float(settings.session_ttl_s), 3 * settings.heartbeat_ms / 1000),
    )
