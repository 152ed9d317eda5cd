"""Which last values does a new subscriber get, and when?

libzmq has no way to send several messages to one subscriber alone: with XPUB_MANUAL it can be one message for each subscription,
and there a peer that sends anything else than subscriptions makes libzmq 4.3.5 take one peer's subscription for another's. So a
last value goes to all who asked for its key, and those who were there before get it once more.
"""

from __future__ import annotations

from typing import Protocol

import trio

from gateway.api import Message, Principal
from gateway_zeromq.endpoints.alarm import Alarm
from gateway_zeromq.endpoints.prefixes import pattern_of
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.settings import XpubEndpoint

SLICE = 64
VISITS = 2_000
"""Keys that are looked at in one turn."""
TOGETHER_S = 0.05
"""Those who ask within this time for the same get it together."""
BREATH_S = 0.001
"""Between two slices: whoever subscribes again and again is not to have the loop for itself."""
IDLE_S = 0.01
PATIENCE_S = 1.0
"""So long a last value waits for a subscriber that has no room."""


class Publisher(Protocol):
    """The socket's side (`gateway_zeromq.endpoints.pub.PubSocket`)."""

    @property
    def behind(self) -> bool:
        """Live messages wait to be sent: what is kept may be newer than they are."""

    def wants(self, prefix: bytes) -> bool:
        """Somebody still subscribes to it."""

    def put(self, message: Message, key: bytes, *, patient: bool = False) -> bool:
        """Send; False: there is no room."""

    def spelled(self, inner: bytes) -> bytes:
        """Return a key as the endpoint writes it."""


class LastValues:
    """What is owed to new subscribers, a slice at a time.

    Args:
        spot: the endpoint.
        settings: its settings.
        principal: as whom it looks.
        publisher: sends.
    """

    def __init__(self, spot: Spot, settings: XpubEndpoint, principal: Principal, publisher: Publisher) -> None:
        self._spot = spot
        self._settings = settings
        self._publisher = publisher
        self._channel = spot.gateway.open_channel(principal)
        self._may_read = principal.authorize is None or principal.authorize("read", settings.exchange, "")
        self._wanted: dict[bytes, int] = {}
        self._asked = Alarm()

    def close(self) -> None:
        """Look no more."""
        self._channel.close()

    def want(self, prefix: bytes) -> None:
        """Somebody has subscribed; what is put from now on comes live."""
        if prefix in self._wanted or len(self._wanted) < self._settings.max_subscriptions:
            self._wanted[prefix] = self._channel.retained_mark()
            self._asked.ring()
        else:
            self._give_up("too many subscriptions at a time")

    async def run(self) -> None:
        """Send what is wanted. Cancellation: safe."""
        while True:
            await self._asked.wait()
            while self._wanted:
                prefix = next(iter(self._wanted))
                await self._send_all(prefix, self._wanted.pop(prefix))
            await trio.sleep(TOGETHER_S)

    async def _send_all(self, prefix: bytes, mark: int) -> None:
        pattern = pattern_of(prefix)
        if pattern is None or not self._may_read:
            return
        look_up = self._channel.look_up(self._settings.exchange, pattern)
        left = self._settings.max_last_values
        while not look_up.done and self._publisher.wants(prefix):
            await self._until_idle()
            found = [message for message, number in look_up.next_slice(SLICE, VISITS) if number <= mark]
            mine = [message for message in found if message.routing_key.encode().startswith(prefix)]
            await self._send_slice(mine[:left], mark)
            await trio.sleep(BREATH_S)
            if len(mine) > left:
                self._give_up(f"one subscription brings at most {self._settings.max_last_values} of them")
                return
            left -= len(mine)

    async def _until_idle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._publisher.behind:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(IDLE_S)

    async def _send_slice(self, messages: list[Message], mark: int) -> None:
        late = False
        for message in messages:
            late = await self._send_one(message, mark, late=late)

    async def _send_one(self, message: Message, mark: int, *, late: bool) -> bool:
        """Send a value as it is now, if it still is one; return whether time has passed since it was looked up."""
        deadline = trio.current_time() + PATIENCE_S
        current: Message | None = message
        while True:
            if late:
                current = self._as_it_is_now(message, mark)
            if current is None or self._put(current, patient=trio.current_time() < deadline):
                break
            late = True  # live messages may pass meanwhile
            await trio.sleep(IDLE_S)
        return late

    def _put(self, message: Message, *, patient: bool) -> bool:
        return self._publisher.put(message, self._publisher.spelled(message.routing_key.encode()), patient=patient)

    def _as_it_is_now(self, message: Message, mark: int) -> Message | None:
        """Return what is kept in place of a message that was looked up some time ago, if it does not come live."""
        key = message.routing_key
        now = self._channel.look_up(self._settings.exchange, key).next_slice(SLICE, VISITS)
        return next((found for found, number in now if found.routing_key == key and number <= mark), None)

    def _give_up(self, reason: str) -> None:
        self._spot.gateway.count("dropped", reason="last values")
        self._spot.say_once("last values withheld", reason, reason=reason)
