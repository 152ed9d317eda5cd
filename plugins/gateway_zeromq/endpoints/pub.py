"""How do messages get to all who subscribe to them, and what do new subscribers get?

PUB and XPUB are one socket, an XPUB: subscribers can't tell them apart, and only this one says that somebody is there. It is told
not to drop (XPUB_NODROP), so that a subscriber that has no room is noticed.
"""

from __future__ import annotations

import trio
import zmq

from gateway.api import Binding, Channel, Message, Principal, QueueSpec, swap_key_bytes
from gateway_zeromq.endpoints.feed import Feed
from gateway_zeromq.endpoints.frames import join_key, joiner_of
from gateway_zeromq.endpoints.lasts import LastValues
from gateway_zeromq.endpoints.prefixes import LONGEST_PREFIX, Change, Prefixes
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.endpoints.turns import Turns
from gateway_zeromq.settings import PubEndpoint, XpubEndpoint
from trio_zmq.pump import COPY_BELOW_BYTES, MORE, NOBLOCK, Oversized, Pump, Whole, whole_messages

RETRY_S = 0.01
"""How often a subscriber without room is tried again."""
KEYS_KEPT = 10_000
SUBSCRIPTIONS_AHEAD = 10
"""Of one peer: libzmq takes all that there are out of its pipe at once, and has no limit for what it then keeps."""
_SUBSCRIBE = 1


class PubSocket:
    """One PUB or XPUB endpoint."""

    def __init__(self, spot: Spot, settings: PubEndpoint | XpubEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._hold = settings.slow_subscriber == "hold"
        self._swap = settings.key_syntax == "mqtt" and settings.key_first
        self._driven = (
            isinstance(settings, XpubEndpoint) and settings.key_first and settings.queue is None and settings.keys is None
        )
        self._prefixes = Prefixes(settings.max_subscriptions)
        self._keys: dict[str, bytes | None] = {}
        self._join = joiner_of(settings.frames, spot.gateway.properties)
        self._blocked = self._ended = False
        own = settings.queue is None
        queue = settings.queue or f"zeromq.{settings.socket.lower()}.{spot.name}"
        self._feed = Feed(spot, principal, queue, self, no_ack=own, prepare=self._prepare if own else None)
        self._note_room()
        socket = spot.socket(zmq.XPUB)
        socket.setsockopt(zmq.SNDHWM, settings.sndhwm)
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.RCVHWM, SUBSCRIPTIONS_AHEAD)
        socket.setsockopt(zmq.MAXMSGSIZE, LONGEST_PREFIX + 1)  # whoever sends more is disconnected
        self._lasts: LastValues | None = None
        if isinstance(settings, XpubEndpoint) and settings.sends_last_values:
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            self._lasts = LastValues(spot, settings, principal, self)
        self._pump: Pump[Whole] = Pump(socket, whole_messages(socket, max_frames=1, max_bytes=LONGEST_PREFIX + 1))

    # -- life

    async def start(self) -> None:
        """Become a consumer of the queue. Errors and cancellation as `Feed.start`."""
        await self._feed.start()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)
        self._grant()

    async def run(self) -> None:
        """Serve subscribers until cancelled or closed. Cancellation: safe."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            if self._lasts is not None:
                nursery.start_soon(self._lasts.run)
            await self._listen()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        turns = Turns(self._heed)
        try:
            while True:
                if self._blocked:
                    with trio.move_on_after(RETRY_S):
                        await turns.take(await self._pump.receive(turns.limit))
                    self._blocked = False
                    self._note_room()
                    self.flush()
                else:
                    await turns.take(await self._pump.receive(turns.limit))
        except trio.ClosedResourceError:
            return

    async def drain(self) -> None:
        """Send what was collected; what a queue delivered and nobody took goes back to it. Cancellation: safe."""
        await trio.lowlevel.checkpoint()
        self.flush()
        self._ended = True

    def close(self) -> None:
        """Close socket and channel."""
        self._ended = True
        self._pump.close(LINGER_MS)
        self._feed.close()
        if self._lasts is not None:
            self._lasts.close()

    # -- what exists

    def _prepare(self, channel: Channel) -> None:
        """Make the endpoint's own queue, and bind it to what is wanted."""
        settings = self._settings
        channel.declare_queue(
            QueueSpec(
                self._feed.queue,
                durable=False,
                exclusive=True,
                max_length=settings.max_waiting,
                max_length_bytes=settings.max_waiting_bytes,
            )
        )
        for key in self._bound():
            channel.bind(self._binding(key))

    def _bound(self) -> list[str]:
        if self._driven:
            return list(self._prefixes.patterns())
        return [self._settings.spelled(key) for key in self._settings.keys or ["#"]]

    def _binding(self, key: str) -> Binding:
        return Binding(self._settings.exchange, self._feed.queue, key)

    # -- who is there

    def _heed(self, batch: list[Whole]) -> None:
        was_there = bool(self._prefixes)
        for said in batch:
            if isinstance(said, bytes) and said[:1] in (b"\x00", b"\x01"):
                self._change(said[0], said[1:])
            else:
                self._strange(said)
        if bool(self._prefixes) != was_there:
            self._feed.hold(held=not self._has_takers)
            self._note_room()
            self.flush()

    def _change(self, what: int, prefix: bytes) -> None:
        inner = swap_key_bytes(prefix) if self._swap else prefix
        known = self._prefixes.overflowed
        change = self._prefixes.add(inner) if what == _SUBSCRIBE else self._prefixes.remove(inner)
        self._keys.clear()
        if self._driven:
            self._rebind(change)
        if self._prefixes.overflowed and not known:
            most = self._settings.max_subscriptions
            self._gateway.log.warning(
                "too many subscriptions: everything is taken, and filtered", endpoint=self._spot.name, most=most
            )
        if what == _SUBSCRIBE and self._lasts is not None:
            self._lasts.want(inner)

    def _rebind(self, change: Change) -> None:
        channel = self._feed.channel
        for pattern in change.bind:
            channel.bind(self._binding(pattern))
        for pattern in change.unbind:
            channel.unbind(self._binding(pattern))

    def _strange(self, said: Whole) -> None:
        """A peer (an XSUB) said what is no subscription."""
        if isinstance(said, Oversized):
            text = f"{said.frames} frames, {said.body_bytes} bytes; a subscription has one, of at most {LONGEST_PREFIX + 1} bytes"
        else:
            text = "what is no subscription"
        self._gateway.count("dropped", reason="not a subscription")
        self._spot.say_once("message dropped", "not a subscription", reason=f"a subscriber sent {text}")

    # -- the way of every message

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send what was collected in this turn."""
        self._feed.taken()
        if self._feed.has_room and not (self._ended or self._pump.closed):
            self._send()
            self._grant()
            self._pump.recheck()

    def _send(self) -> None:
        pending = self._feed.pending
        taken = 0
        for item in pending:
            if not self._send_live(item.message):
                self._blocked = True
                self._note_room()
                self._pump.wake()
                break
            taken += 1
        handed, pending[:taken] = pending[:taken], []
        if self._settings.queue is not None:
            self._feed.hand_over(handed)

    def _send_live(self, message: Message) -> bool:
        """Send a message if anybody wants it; False: somebody has no room."""
        routing_key = message.address.routing_key
        try:
            key = self._keys[routing_key]
        except KeyError:
            key = self._key(routing_key)
        if key is not None and (self._settings.key_first or self._prefixes.want(self._join(message, key)[0])):
            return self._put(message, key)
        if self._settings.queue is not None:
            self._gateway.count("dropped", reason="no subscriber")
            self._spot.say_once("message dropped", "no subscriber", reason="nobody subscribes to such messages of the queue")
        return True

    def _put(self, message: Message, key: bytes, *, patient: bool = False) -> bool:
        """Send one message to all who want it; False: somebody has no room, and nobody has got it.

        Args:
            key: in the endpoint's spelling.
            patient: one that has no room is waited for, whatever the settings say.
        """
        try:
            self._send_one(message, key)
        except zmq.Again:
            if self._hold or patient:
                return False
            self._drop_for_some(message, key)
        return True

    def _send_one(self, message: Message, key: bytes) -> None:
        if self._join is join_key:
            self._pump.send(key, MORE)
            self._pump.send(message.body, NOBLOCK, len(message.body) < COPY_BELOW_BYTES)
        else:
            self._pump.send_frames(self._join(message, key))

    def _drop_for_some(self, message: Message, key: bytes) -> None:
        """Send to those who have room."""
        self._gateway.count("dropped", reason="slow subscriber")
        self._spot.say_once("message dropped", "slow", reason="a subscriber does not read fast enough")
        socket = self._pump.socket
        socket.setsockopt(zmq.XPUB_NODROP, 0)
        try:
            self._send_one(message, key)
        finally:
            socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _key(self, routing_key: str) -> bytes | None:
        """Return the key in the endpoint's spelling; None: nobody wants it."""
        if len(self._keys) >= KEYS_KEPT:
            self._keys.clear()
        inner = routing_key.encode()
        wanted = not self._settings.key_first or self._prefixes.want(inner)
        key = self._keys[routing_key] = self.spelled(inner) if wanted else None
        return key

    def _grant(self) -> None:
        """Let messages come, while there is somebody to send them to."""
        if self._feed.has_room and not self._ended:
            self._feed.grant(self._settings.prefetch - len(self._feed.pending))

    def _note_room(self) -> None:
        self._feed.has_room = self._has_takers and not self._blocked

    @property
    def _has_takers(self) -> bool:
        """What comes may be sent: a queue's messages stay there until somebody subscribes, an exchange's are for who is there."""
        return self._settings.queue is None or bool(self._prefixes)

    # -- last values (`lasts.Publisher`)

    def put(self, message: Message, key: bytes, *, patient: bool = False) -> bool:
        """See `lasts.Publisher`: as `_put`, by another task than the one that waits for subscriptions."""
        try:
            return self._put(message, key, patient=patient)
        finally:
            self._pump.recheck()

    @property
    def behind(self) -> bool:
        """There are live messages that have not been sent."""
        if self._blocked or self._feed.pending:
            return True
        info = self._feed.channel.queue_info(self._feed.queue)
        return info is not None and info.messages > 0

    def wants(self, prefix: bytes) -> bool:
        """Say whether somebody subscribes to this now."""
        return prefix in self._prefixes

    def spelled(self, inner: bytes) -> bytes:
        """Return a key as the endpoint writes it."""
        return swap_key_bytes(inner) if self._swap else inner
