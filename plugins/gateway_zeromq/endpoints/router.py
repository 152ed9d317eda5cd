"""Who reads and writes the ROUTER socket, knows its peers by name, and notices when they die?"""

from __future__ import annotations

from contextlib import suppress

import trio
import zmq

from gateway.api import AccessRefused, Principal
from gateway_zeromq.endpoints.arrived import Arrived, take_from
from gateway_zeromq.endpoints.majordomo import MajordomoSpeech
from gateway_zeromq.endpoints.speech import Peer, Speech, TgpSpeech
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.endpoints.strangers import Strangers
from gateway_zeromq.endpoints.turns import Turns
from gateway_zeromq.settings import RouterEndpoint
from gateway_zeromq.standing import Rounds, State
from gateway_zeromq.tgp.bridge import Desk
from gateway_zeromq.tgp.replies import FORCED
from trio_zmq.pump import BATCH, POLLIN, Pump

MOST_LAST_MESSAGES = 10_000
RETRY_S = 0.01
"""How often peers whose pipes are full are tried again: what makes room is no event of the socket's."""
LATE_DEATH_S = 0.05
_TICK_S = 0.5
_LEAST_TICK_S = 0.02
_SRCFD = int(zmq.SRCFD)
_GIVEN = b"\0"
"""How names begin that libzmq gives; it gives none twice."""


class RouterSocket:
    """One ROUTER endpoint.

    ``refusing``: the journal is behind for longer than a moment: publishes are refused, all else goes on.
    """

    def __init__(self, spot: Spot, settings: RouterEndpoint, principal: Principal, desk: Desk) -> None:
        self._spot = spot
        self._settings = settings
        self._principal = principal
        self._gateway = spot.gateway
        self._speeches: list[Speech] = speeches_of(spot, settings, principal, desk, self)
        self._speech_of: dict[type, Speech] = {kind: speech for speech in self._speeches for kind in speech.peers}
        self._hold_s = settings.heartbeat_ms / 2_000
        self._peers: dict[bytes, Peer] = {}
        self._names: dict[Peer, bytes] = {}
        self._users: dict[Peer, str | None] = {}
        self._knows_users = spot.knows_users
        self._by_descriptor: dict[int, Peer] = {}
        self._dying: dict[Peer, tuple[int, float]] = {}
        self._congested: dict[Peer, None] = {}
        self._dirty: list[Peer] = []
        self._shortest_beat_s = min(speech.beat_s for speech in self._speeches)
        self._strangers = Strangers()
        self.refusing = False
        socket = spot.socket()
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.RCVHWM, settings.rcvhwm)
        socket.setsockopt(zmq.SNDHWM, settings.sndhwm)
        self._pump: Pump[Arrived] = Pump(socket, take_from(socket, settings.max_message_bytes, self._max_frames()))
        self._turns = Turns(self._handle)
        self._monitor = spot.monitor(socket, self._disconnected)

    def _max_frames(self) -> int:
        return max(speech.max_frames for speech in self._speeches)

    async def start(self) -> None:
        """Do what the protocols need. Raises: ConfigError. Cancellation: safe."""
        for speech in self._speeches:
            await speech.start()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def run(self) -> None:
        """Serve peers until cancelled or closed. Cancellation: what was received is dealt with."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._monitor.run)
            nursery.start_soon(self._tick)
            await self._serve()
            nursery.cancel_scope.cancel()

    async def _serve(self) -> None:
        try:
            while True:
                self.refusing = self._gateway.holding and not await self._released()
                if self._congested:
                    with trio.move_on_after(RETRY_S):
                        await self._turns.take(await self._pump.receive(self._turns.limit))
                else:
                    await self._turns.take(await self._pump.receive(self._turns.limit))
                self._do_chores()
        except trio.ClosedResourceError:
            return

    async def _released(self) -> bool:
        """Hold publishers back for as long as none of them takes that for death; False: the journal is still behind."""
        with trio.move_on_after(self._hold_s):
            await self._gateway.until_released()
        return not self._gateway.holding

    def _handle(self, batch: list[Arrived]) -> None:
        now = trio.current_time()
        peers, knows_users = self._peers, self._knows_users
        for message in batch:
            name, header, body, _, frames = message
            peer = peers.get(name)
            if peer is None or frames is not None or knows_users:
                self._unusual(message, peer, now)
                continue
            epoch = peer.epoch
            peer.receive(header.bytes, body, now)
            if peer.state is not State.READY or peer.epoch != epoch:
                self._note_state(name, header, peer)
        for speech in self._speeches:
            speech.after_batch()

    def _unusual(self, message: Arrived, peer: Peer | None, now: float) -> None:
        """Hear a stranger, a message of more than two frames, or on a socket that knows users anybody."""
        name, header, body, enveloped, frames = message
        user = self._spot.user_of(header) if self._knows_users else None
        if peer is not None and self._users.get(peer) != user:  # the name went to somebody else, before its owner's death was seen
            self._died(peer)
            peer = None
        if peer is None:
            peer = self._meet(name, header.bytes, user, enveloped=enveloped)
            if peer is None:
                return
        epoch = peer.epoch
        if frames is None:
            peer.receive(header.bytes, body, now)
        elif isinstance(frames, list):
            self._speech_of[type(peer)].receive_more(peer, frames, now)
        else:
            self._speech_of[type(peer)].receive_too_much(peer, frames, now)
        if peer.state is State.READY and peer.epoch == epoch:
            return
        if not peer.epoch and peer.out and not self._strangers.may_be_told(name, now):
            self._strangers.keep(name, peer)
        self._note_state(name, header, peer)

    def _meet(self, name: bytes, header: bytes, user: str | None, *, enveloped: bool) -> Peer | None:
        """Return a new peer of the protocol that begins so; None: no protocol does."""
        try:
            principal = self._spot.principal_of(user, self._principal)
        except AccessRefused as error:
            self._gateway.count("violations")
            self._spot.say_once("peer without a user", name.hex(), peer=name.hex(), reason=error.text)
            return None
        for speech in self._speeches:
            if speech.begins(header):
                peer = speech.meet(name, header, principal, enveloped=enveloped)
                self._names[peer] = name
                if self._knows_users:
                    self._users[peer] = user
                    if name[:1] != _GIVEN:  # what was meant for a user who had that name, and is gone, would be sent there
                        speech.turn_away(peer, "users are known here: a routing id of your own choice is not allowed")
                return peer
        self._gateway.count("violations")
        spoken = ", ".join(self._settings.protocols)
        self._spot.say_once("no protocol begins so", name.hex(), peer=name.hex(), frame=repr(header[:20])[2:-1], protocols=spoken)
        return None

    def _note_state(self, name: bytes, header: zmq.Frame, peer: Peer) -> None:
        """Know a peer that was let in; forget one that has gone, after what is to be said to it."""
        if peer.state is not State.READY:
            self._forget(peer)
            return
        self._peers[name] = peer
        self._strangers.forget(name)
        self._shortest_beat_s = min(self._shortest_beat_s, peer.heartbeat_s)
        # What the monitor has to tell of an earlier connection under this descriptor must not be taken for news of this one.
        self._monitor.look()
        with suppress(zmq.ZMQError):  # it has none
            self._by_descriptor[int(header.get(_SRCFD))] = peer

    def _forget(self, peer: Peer) -> None:
        name = self._names.get(peer)
        if name is not None and self._peers.get(name) is peer:
            del self._peers[name]
        if peer in self._congested:  # nobody waits for room on behalf of those who are gone
            peer.out.clear()
            peer.out_bytes = 0
        if not peer.out:
            self._names.pop(peer, None)
            self._users.pop(peer, None)
            self._congested.pop(peer, None)

    # -- Port

    def touch(self, peer: Peer) -> None:
        """See `bridge.Port`."""
        if not self._dirty:
            self._gateway.touch(self)
        self._dirty.append(peer)

    def violated(self, peer: Peer, reason: str) -> None:
        """See `bridge.Port`."""
        self._gateway.count("violations")
        name = self._names[peer].hex()
        self._spot.say_once("protocol violation", name, peer=name, reason=reason)

    def has_room(self) -> bool:
        """See `bridge.Port`."""
        most = self._settings.max_peers
        return most is None or len(self._peers) < most

    def known(self, name: bytes) -> Peer | None:
        """See `majordomo.Names`."""
        return self._peers.get(name)

    def address(self, peer: Peer, name: bytes) -> None:
        """See `majordomo.Names`."""
        self._names[peer] = name

    # -- sending

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send what was said in this turn."""
        dirty, self._dirty = self._dirty, []
        if not self._pump.closed:
            for peer in dirty:
                if peer not in self._congested:
                    self._send(peer)
            self._pump.recheck()

    def _send(self, peer: Peer) -> None:
        name = self._names.get(peer)
        if name is None:
            peer.out.clear()
            return
        speech = self._speech_of[type(peer)]
        try:
            sent = speech.write(self._pump.send, name, peer)
        except zmq.ZMQError:  # EHOSTUNREACH: it is gone
            self._unreachable(peer)
            return
        if sent < len(peer.out):
            self._fell_behind(peer, speech)
        self._sent(peer, sent, speech)

    def _sent(self, peer: Peer, count: int, speech: Speech) -> None:
        if count == len(peer.out):
            peer.out.clear()
            peer.out_bytes = 0
            if self._congested and peer in self._congested:
                del self._congested[peer]
                speech.resume(peer)
            if peer.state is not State.READY:
                self._forget(peer)
            return
        peer.out_bytes -= speech.weigh(peer.out[:count])
        del peer.out[:count]

    def _fell_behind(self, peer: Peer, speech: Speech) -> None:
        if peer.state is not State.READY:
            self._died(peer)  # a stranger, or a goodbye: under one name there may be any number of them
        elif peer not in self._congested:
            self._congested[peer] = None
            self._pump.wake()
            speech.pause(peer)
        elif peer.out_bytes > self._settings.max_waiting_bytes:
            self._gateway.count("slow_peers")
            self._spot.say_once("peer does not read", self._names[peer].hex(), peer=self._names[peer].hex(), waiting=peer.out_bytes)
            self._died(peer)

    # -- death

    def _disconnected(self, descriptor: int) -> None:
        peer = self._by_descriptor.pop(descriptor, None)
        if peer is not None and peer.state is State.READY:
            self._bury_soon(peer)

    def _unreachable(self, peer: Peer) -> None:
        """Nothing can be sent to it: what it said before may still be there to be read."""
        peer.unreachable()
        self._congested.pop(peer, None)
        if peer.state is State.READY:
            self._bury_soon(peer)
        else:
            self._died(peer)

    def _bury_soon(self, peer: Peer) -> None:
        if self._dying.get(peer, (-1, 0.0))[0] != peer.epoch:
            self._dying[peer] = (peer.epoch, trio.current_time() + LATE_DEATH_S)
        self._pump.wake()

    def _do_chores(self) -> None:
        """Bury who is gone, once all that they said has been read; try again who was full."""
        if self._dying and (self._pump.drained or trio.current_time() >= min(until for _, until in self._dying.values())):
            dying, self._dying = self._dying, {}
            for peer, (epoch, _) in dying.items():
                if peer.epoch == epoch and peer.state is State.READY:  # or it was told why not, and that is to be sent
                    if peer.out and self._speech_of[type(peer)].is_told_by_name(peer):
                        self._send(peer)
                    self._died(peer)
        if self._dying:
            self._pump.wake()  # if this was the last of what they said, nothing else would
        for peer in list(self._congested):
            self._send(peer)

    def _died(self, peer: Peer) -> None:
        peer.end()
        peer.out.clear()
        peer.out_bytes = 0
        self._forget(peer)

    async def _tick(self) -> None:
        """Ask who is silent, bury who stays so, forget sessions."""
        rounds = Rounds(trio.current_time())
        while True:
            interval_s = max(_LEAST_TICK_S, min(_TICK_S, self._shortest_beat_s / 4))
            await trio.sleep(interval_s)
            now = trio.current_time()
            late_s = rounds.late_s(now, interval_s)
            if late_s:
                for peer in self._peers.values():
                    peer.excuse(late_s, now)
            for speech in self._speeches:
                speech.expire()
                speech.beat(now)
            self._answer_strangers(now)
            if self._gateway.holding or self._pump.closed or self._has_unheard():
                continue
            for peer in list(self._peers.values()):
                if not peer.tick(now):
                    self._gateway.count("silent_peers")
                    self._forget(peer)

    def _has_unheard(self) -> bool:
        """Say whether somebody may have spoken before the last round and was not heard since: libzmq takes from all in turns."""
        heard, self._turns.done = self._turns.done, 0
        return self._turns.left > 0 or (heard < 2 * len(self._peers) + BATCH and bool(self._pump.events() & POLLIN))

    def _answer_strangers(self, now: float) -> None:
        if self._pump.closed:
            return
        for name, peer in self._strangers.due(now):
            self._names[peer] = name
            self._send(peer)
        self._pump.recheck()

    # -- the end

    async def drain(self) -> None:
        """Read what is there, let what is published be decided, say goodbye. Cancellation: safe."""
        read = 0
        while not self._pump.closed and read < MOST_LAST_MESSAGES and self._pump.events() & POLLIN:
            batch = await self._pump.receive()
            self._handle(batch)
            read += len(batch)
        for speech in self._speeches:
            await speech.decided()
        for peer in self._peers.values():  # what one gives back is not for the next
            self._speech_of[type(peer)].pause(peer)
        for peer in list(self._peers.values()):
            peer.goodbye(FORCED, "the broker stops")
        self.flush()

    def close(self) -> None:
        """Close sockets and channels."""
        for peer in list(self._peers.values()):
            peer.end()
        for speech in self._speeches:
            speech.close()
        self._monitor.close()
        self._pump.close(LINGER_MS)


def speeches_of(spot: Spot, settings: RouterEndpoint, principal: Principal, desk: Desk, port: RouterSocket) -> list[Speech]:
    """Return the protocols of an endpoint, in the order in which they are tried on strangers."""
    speeches: list[Speech] = []
    if any(protocol.startswith("mdp/") for protocol in settings.protocols):
        speeches.append(MajordomoSpeech(spot, settings, principal, port))
    if "tgp/1" in settings.protocols:
        speeches.append(TgpSpeech(desk, port, settings))
    return speeches
