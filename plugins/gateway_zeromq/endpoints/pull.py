"""How does what plain peers send get published?"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import trio
import zmq

from gateway.api import AccessRefused, Principal
from gateway_zeromq.endpoints.alarm import Alarm
from gateway_zeromq.endpoints.intake import Intake
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.endpoints.turns import Turns
from gateway_zeromq.settings.taking import CollectingEndpoint
from trio_zmq.pump import NOBLOCK, POLLIN, Oversized, Pump, Whole, rest_of_message, whole_messages

MAX_PENDING = 16_384
"""Messages without an outcome; with more nothing is received, and TCP holds the peers back."""
_MOST_FRAMES = 3
_DRAIN_S = 0.5

Signed: TypeAlias = tuple[str | None, Whole]
"""A message, and which user sent it."""


def signed_messages(
    socket: zmq.Socket[bytes], user_of: Callable[[zmq.Frame], str | None], *, max_frames: int, max_bytes: int
) -> Callable[[], Signed]:
    """Return a function that takes one message and says which user sent it; else as `whole_messages`."""
    recv = socket.recv

    def take() -> Signed:
        frame = recv(NOBLOCK, False)
        user, body = user_of(frame), frame.bytes
        if frame.more:
            return user, rest_of_message(socket, [body], max_frames, max_bytes)
        return user, body if len(body) <= max_bytes else Oversized(1, len(body))

    return take


class PullSocket:
    """One endpoint that takes in (PULL; SUB and XSUB subscribe besides).

    Where users are known, each has a channel of its own; elsewhere, there is one for all.
    """

    def __init__(self, spot: Spot, settings: CollectingEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._principal = principal
        self._gateway = spot.gateway
        self._room = Alarm()
        self._waiting = False
        self._own = Intake(spot, settings, principal, self._has_decided)
        self._work: Callable[[list[Any]], None] = self._publish_by_user if spot.knows_users else self._own.work
        self._intakes: dict[str | None, Intake] = {}
        socket = spot.socket()
        socket.setsockopt(zmq.RCVHWM, settings.rcvhwm)
        frames, size = max(settings.max_frames, _MOST_FRAMES), settings.max_message_bytes
        take: Callable[[], Any] = (
            signed_messages(socket, spot.user_of, max_frames=frames, max_bytes=size)
            if spot.knows_users
            else whole_messages(socket, max_frames=frames, max_bytes=size)
        )
        self._pump: Pump[Any] = Pump(socket, take)

    async def start(self) -> None:
        """Nothing is to be done first. Cancellation: safe."""
        await trio.lowlevel.checkpoint()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def run(self) -> None:
        """Publish what comes, until cancelled or closed. Cancellation: what was received is published."""
        turns = Turns(self._work)
        try:
            while True:
                if self._gateway.holding:
                    await self._gateway.until_released()
                while self._pending() >= MAX_PENDING:
                    self._waiting = True
                    await self._room.wait()
                await turns.take(await self._pump.receive(turns.limit))
        except trio.ClosedResourceError:
            return

    def _pending(self) -> int:
        return self._own.pending + sum(intake.pending for intake in self._intakes.values())

    def _has_decided(self) -> None:
        if self._waiting:
            self._waiting = False
            self._room.ring()

    async def drain(self) -> None:
        """Publish what libzmq has taken already, for as long as that needs but not for ever. Cancellation: safe."""
        with trio.move_on_after(_DRAIN_S):
            while self._pump.events() & POLLIN:
                self._work(await self._pump.receive())

    def close(self) -> None:
        """Close socket and channels."""
        self._pump.close()
        self._own.close()
        for intake in self._intakes.values():
            intake.close()

    # -- users

    def _publish_by_user(self, batch: list[Signed]) -> None:
        for user, run in groupby(batch, key=itemgetter(0)):
            messages = [whole for _, whole in run]
            try:
                intake = self._intakes.get(user) or self._meet(user)
            except AccessRefused as error:
                for _ in messages:
                    self._own.drop("refused", error.text)
            else:
                intake.work(messages)

    def _meet(self, user: str | None) -> Intake:
        """Return what a user publishes by. Raises: AccessRefused: it may not."""
        principal = self._spot.principal_of(user, self._principal)
        intake = self._intakes[user] = Intake(self._spot, self._settings, principal, self._has_decided)
        return intake
