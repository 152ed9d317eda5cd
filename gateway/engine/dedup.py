"""Was a message with this id published to this exchange already, not long ago?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.engine.queues.dead_letter import DEATHS
from gateway.errors import GatewayError, PreconditionFailed
from gateway.model.declare import ExchangeSpec, arguments_text
from gateway.model.exchange_arguments import Deduplication
from gateway.model.message import Message
from gateway.model.properties import Properties

if TYPE_CHECKING:
    from gateway.engine.engine import Engine, Unroutable
    from gateway.engine.route import RouteHandle

HEADER = "x-deduplication-header"
LONGEST = 128
_FORGOTTEN_AT_ONCE = 4

Answer: TypeAlias = "GatewayError | Unroutable | None"
Step: TypeAlias = "Callable[[RouteHandle, Message], Answer]"


def namespace(vhost: str, exchange: str) -> str:
    """Return where the ids of an exchange are kept: id -> until when (ms since 1970) and its rank, rising, in decimal."""
    return f"engine.deduplication {arguments_text({'vhost': vhost, 'exchange': exchange})}"


def message_key(properties: Properties) -> str | None:
    """Return what tells a message from others: its `HEADER`, or else its message id; None: nothing does.

    Text and bytes and numbers never are the same; what is longer than `LONGEST` is told by its digest. A dead letter has none:
    it is no repetition, but comes a second time.
    """
    headers = properties.headers or {}
    value: Any = headers.get(HEADER)
    if value is None:
        value = properties.message_id
    if value is None or DEATHS in headers:
        return None
    text = _canonical(value)
    if len(text) <= LONGEST:
        return text
    return "digest:" + sha256(text.encode(errors="surrogatepass")).hexdigest()


def _canonical(value: object) -> str:
    if isinstance(value, str):
        return "text:" + (value if value.isascii() else ascii(value))
    if isinstance(value, bytes | bytearray):
        return "bytes:" + value.hex()
    return "value:" + arguments_text({"": value})


class Window:
    """The ids of one exchange's last messages, in the order of their coming; all of them stay for the same time.

    Only what was taken is remembered: what was refused, or reached no queue, may come again. Those of persistent messages, on
    a durable exchange, are kept in the same batch as the message.
    """

    __slots__ = ("_durable", "_engine", "_exchange", "_namespace", "_rank", "_seen", "settings")

    def __init__(self, engine: Engine, vhost: str, spec: ExchangeSpec, settings: Deduplication) -> None:
        self.settings: Deduplication = settings
        self._engine: Engine = engine
        self._exchange: str = spec.name
        self._durable: bool = spec.durable
        self._namespace: str = namespace(vhost, spec.name)
        self._seen: OrderedDict[str, int] = OrderedDict()
        latest_ms = engine.now_ms + settings.window_ms  # the clock may have been set back since
        kept = sorted(_kept(key, value) for key, value in engine.kept.state(self._namespace).items())
        self._seen.update((key, min(until_ms, latest_ms)) for _, until_ms, key in kept)
        self._rank: int = kept[-1][0] if kept else 0

    def __len__(self) -> int:
        return len(self._seen)

    def publish(self, route: RouteHandle, message: Message, step: Step) -> Answer:
        """Publish a message by `step`, unless its id is known: then it is confirmed, dropped and counted."""
        try:
            key = self._key_of(message)
        except PreconditionFailed as error:
            return error
        now_ms = self._engine.now_ms
        self._forget_some(now_ms)
        if key is None:
            return step(route, message)
        if self._seen.get(key, 0) > now_ms:
            doubt = self._doubt(key)
            if doubt is not None:
                return doubt
            self._engine.events.dropped(self._exchange, "duplicate", 1)
            self._engine.kept.values.take_offered(message)
            return None
        answer = step(route, message)
        if answer is None:
            if message.persistent:
                self._engine.special.unsure(self, key, stays=message in self._engine.ours)
            self._remember(key, now_ms + self.settings.window_ms, lasting=message.persistent)
        return answer

    def knows(self, message: Message) -> bool:
        """Say whether a message is a repetition now.

        Raises:
            PreconditionFailed: it can't be decoded. Overloaded: it is one of what the failing journal has not taken yet.
        """
        key = self._key_of(message)
        if key is None or self._seen.get(key, 0) <= self._engine.now_ms:
            return False
        doubt = self._doubt(key)
        if doubt is not None:
            raise doubt
        return True

    def _doubt(self, key: str) -> GatewayError | None:
        """Return why the journal fails that may not have the message of an id: then its repetition must not be confirmed."""
        return self._engine.refusal if self._engine.special.is_unsure(self, key) else None

    def _key_of(self, message: Message) -> str | None:
        try:
            return message_key(self._engine.properties(message))
        except Exception as error:
            raise PreconditionFailed(f"the message's properties can't be decoded: {error}") from error

    def clear(self) -> None:
        """Forget all ids, in memory and on disk. Cost: how many there are."""
        while self._seen:
            self._forget_first()

    def forget(self, key: str) -> None:
        """Forget an id: its message was refused after all."""
        self._seen.pop(key, None)
        self._drop_kept(key)

    def _remember(self, key: str, until_ms: int, *, lasting: bool) -> None:
        self._seen[key] = until_ms
        self._seen.move_to_end(key)
        if self._durable:
            if lasting:
                self._rank += 1
                self._engine.kept.put_state(self._namespace, key, b"%d %d" % (until_ms, self._rank))
            else:
                self._drop_kept(key)
        while len(self._seen) > self.settings.size:
            self._forget_first()

    def _forget_some(self, now_ms: int) -> None:
        """Forget what is out of the window: more at a time than can come, so that it ends."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not self._seen or next(iter(self._seen.values())) > now_ms:
                return
            self._forget_first()

    def _forget_first(self) -> None:
        self._drop_kept(self._seen.popitem(last=False)[0])

    def _drop_kept(self, key: str) -> None:
        if key in self._engine.kept.state(self._namespace):
            self._engine.kept.put_state(self._namespace, key, None)


def _kept(key: str, value: bytes) -> tuple[int, int, str]:
    """Read what is kept of an id: its rank, until when, and itself."""
    until_ms, rank = value.split()
    return int(rank), int(until_ms), key
