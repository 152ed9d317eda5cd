"""Where does a message on one address go, resolved once?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError
from gateway.model.declare import DEFAULT_OPTIONS, BindingOptions
from gateway.model.message import Address, Message

if TYPE_CHECKING:
    from gateway.engine.queues.consumer import Consumer
    from gateway.engine.queues.queue import Queue
    from gateway.engine.vhost import VirtualHost

Target = tuple["Queue", BindingOptions | None]
Tap = tuple[Callable[[Message, BindingOptions | None], None], BindingOptions | None, "Consumer"]

STALE = -1

# What is empty is shared, and stays so: there may be very many routes, and most lead to one queue, or to none.
_NO_TARGETS: Final[list[Target]] = []
_NO_TAPS: Final[list[Tap]] = []
_NO_QUEUES: Final[list[Queue]] = []


class Unroutable:
    """Answer of `Engine.publish` for a message that reached no queue."""


UNROUTABLE = Unroutable()
Through = Callable[["RouteHandle", Message], GatewayError | Unroutable | None]


class RouteHandle:
    """An address with the queues that it reaches, as of `generation`.

    Persistent messages go to `stored` (or, where the binding grants QoS 0, to `low_taps` and `low_queued`);
    others to `taps` (straight to the consumer's sink) and `queued`. ``rejecting``: which of these refuse, or end, when full.
    ``idle``: matching queues that keep nothing transient and have nobody to hand it to. ``through``: what the exchange puts
    before the normal way. ``ours``: messages on this route come from the engine, which may use internal exchanges.
    ``local_to``: the publisher's own queue: bindings of it with ``no_local`` are left out. ``also``: further keys.
    """

    __slots__ = (
        "address",
        "also",
        "durable",
        "generation",
        "idle",
        "local_to",
        "low_idle",
        "low_queued",
        "low_taps",
        "matched",
        "ours",
        "queued",
        "refusal",
        "rejecting",
        "rejecting_transient",
        "stored",
        "taps",
        "through",
        "vhost",
    )

    def __init__(
        self, vhost: VirtualHost, address: Address, *, ours: bool = False, local_to: str = "", also: tuple[str, ...] = ()
    ) -> None:
        self.vhost: VirtualHost = vhost
        self.address: Address = address
        self.generation: int = STALE
        self.refusal: GatewayError | None = None
        self.through: Through | None = None
        self.ours: bool = ours
        self.local_to: str = local_to
        self.also: tuple[str, ...] = also
        self.clear()

    def clear(self) -> None:
        """Forget where it led."""
        self.matched: bool = False
        self.durable: bool = False
        self.idle: int = 0
        self.low_idle: int = 0
        self.stored: list[Target] = _NO_TARGETS
        self.queued: list[Target] = _NO_TARGETS
        self.low_queued: list[Target] = _NO_TARGETS
        self.taps: list[Tap] = _NO_TAPS
        self.low_taps: list[Tap] = _NO_TAPS
        self.rejecting: list[Queue] = _NO_QUEUES
        self.rejecting_transient: list[Queue] = _NO_QUEUES

    def lead_to(self, found: Iterable[tuple[Queue, BindingOptions]]) -> None:
        """Add the queues that were found to a route that was cleared; once."""
        self.stored, self.queued, self.low_queued = [], [], []
        self.taps, self.low_taps = [], []
        self.rejecting, self.rejecting_transient = [], []
        for queue, options in found:
            self._add(queue, options)
        self.stored = self.stored or _NO_TARGETS
        self.queued = self.queued or _NO_TARGETS
        self.low_queued = self.low_queued or _NO_TARGETS
        self.taps = self.taps or _NO_TAPS
        self.low_taps = self.low_taps or _NO_TAPS
        self.rejecting = self.rejecting or _NO_QUEUES
        self.rejecting_transient = self.rejecting_transient or _NO_QUEUES

    def _add(self, queue: Queue, options: BindingOptions) -> None:
        if options.no_local and queue.name == self.local_to:
            return
        given = None if options == DEFAULT_OPTIONS else options
        self.matched = True
        low = options.qos == 0
        if not low:
            self.stored.append((queue, given))
            self.durable = self.durable or queue.durable
        if queue.rejects and (not low or queue.spec.keep_transient):
            self.rejecting.append(queue)
        if queue.spec.keep_transient:
            self.queued.append((queue, given))
            if low:
                self.low_queued.append((queue, given))
            if queue.rejects:
                self.rejecting_transient.append(queue)
            return
        taps: list[Tap] = [(c.sink.deliver_transient, given, c) for c in queue.foremost if c.sink is not None]
        self.taps += taps
        self.idle += not taps
        if low:
            self.low_taps += taps
            self.low_idle += not taps
