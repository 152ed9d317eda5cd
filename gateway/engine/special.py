"""What stands before the normal way of an exchange: does it look for repetitions, does it delay?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.engine.dedup import Answer, Step, Window, namespace
from gateway.engine.schedule.later import DELAY, delayed
from gateway.errors import GatewayError, PreconditionFailed
from gateway.model.arguments import MAX_MS
from gateway.model.declare import ExchangeSpec
from gateway.model.exchange_arguments import DELAYED, deduplication
from gateway.model.message import Message
from gateway.model.properties import Properties

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.route import RouteHandle


class Special:
    """Exchanges with deduplication, or with delays, or with both (first the one, then the other)."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._windows: dict[tuple[str, str], Window] = {}
        self._fresh: dict[tuple[Window, str], bool] = {}
        self._writing: dict[tuple[Window, str], bool] = {}

    def through(self, vhost: str, spec: ExchangeSpec) -> Step | None:
        """Return what publishes to an exchange; None: nothing stands before the normal way.

        Made anew at every call, but the window of an exchange is the same until it is deleted.

        Raises:
            PreconditionFailed: its arguments make no sense (`check_exchange` says so when it is declared).
        """
        if spec.type != DELAYED and not spec.arguments:
            return None
        step: Step | None = None
        if spec.type == DELAYED:
            step = self._delay
        window = self._window(vhost, spec)
        if window is not None:
            step = partial(window.publish, step=step or self._engine.publish_now)
        return step

    def deduplicated(self, route: RouteHandle, message: Message, spec: ExchangeSpec, step: Step) -> Answer:
        """Publish by `step` what is no repetition: for what is scheduled by other means than an exchange's delay."""
        window = self._window(route.address.vhost, spec)
        return step(route, message) if window is None else window.publish(route, message, step)

    def delays(self, route: RouteHandle, message: Message) -> bool:
        """Say whether a message on this route would have to wait: then nobody knows yet which queues it will reach."""
        exchange = route.vhost.table.find(route.address.exchange)
        if exchange is None or exchange.spec.type != DELAYED:
            return False
        try:
            return read_delay(self._engine.properties(message)) > 0
        except Exception:  # an edge: a front-end's decoder; `publish` says what is wrong
            return False

    def goes_on(self, route: RouteHandle, message: Message) -> bool:
        """Say whether `publish` would bring a message to queues now: it is no repetition, and need not wait.

        Raises:
            GatewayError: it would be refused before that.
        """
        spec = route.vhost.table.get(route.address.exchange).spec
        window = self._window(route.address.vhost, spec)
        if window is not None and window.knows(message):
            return False
        if spec.type != DELAYED:
            return True
        try:
            delay_ms = read_delay(self._engine.properties(message))
        except GatewayError:
            raise
        except Exception as error:
            raise PreconditionFailed(f"the message's properties can't be decoded: {error}") from error
        if delay_ms <= 0:
            return True
        self._engine.schedule.check(route, message, self._engine.now_ms + delay_ms)
        return False

    def deleted(self, vhost: str, name: str) -> None:
        """An exchange is gone, and with it what it remembers, in the same batch. Cost: how many ids that are."""
        window = self._windows.pop((vhost, name), None)
        if window is not None:
            window.clear()
        kept = namespace(vhost, name)
        for key in list(self._engine.kept.state(kept)):
            self._engine.kept.put_state(kept, key, None)

    # -- ids of messages that are not on disk yet ---------------------------

    def unsure(self, window: Window, key: str, *, stays: bool) -> None:
        """Note an id of which the message is in the open batch; `stays`: that is never withdrawn."""
        self._fresh[window, key] = stays

    def is_unsure(self, window: Window, key: str) -> bool:
        """Say whether the message of an id may still not be on disk. Cost: two look-ups."""
        return (window, key) in self._fresh or (window, key) in self._writing

    def batch_prepared(self) -> None:
        """The batch that was taken is on its way."""
        if self._fresh:
            self._writing.update(self._fresh)
            self._fresh = {}

    def committed(self) -> None:
        """The batch that was taken is on disk."""
        if self._writing:
            self._writing = {}

    def withdraw(self) -> None:
        """Whoever sent what is not on disk was told no: it is no repetition when it comes again, but for what stays."""
        for (window, key), stays in (*self._writing.items(), *self._fresh.items()):
            if not stays:
                window.forget(key)
        self._writing = {noted: True for noted, stays in self._writing.items() if stays}
        self._fresh = {noted: True for noted, stays in self._fresh.items() if stays}

    def _window(self, vhost: str, spec: ExchangeSpec) -> Window | None:
        settings = deduplication(spec)
        if settings is None:
            return None
        window = self._windows.get((vhost, spec.name))
        if window is not None and window.settings == settings:
            return window
        window = self._windows[vhost, spec.name] = Window(self._engine, vhost, spec, settings)
        return window

    def _delay(self, route: RouteHandle, message: Message) -> Answer:
        """Schedule a message by its header; one without a delay is published at once."""
        try:
            properties = self._engine.properties(message)
        except Exception as error:
            return PreconditionFailed(f"the message's properties can't be decoded: {error}")
        try:
            delay_ms = read_delay(properties)
            if delay_ms <= 0:
                return self._engine.publish_now(route, message)
            later = delayed(message, properties, delay_ms)
            if message in self._engine.ours:
                self._engine.ours.add(later)
            scheduled_id = self._engine.schedule.place(route, later, self._engine.now_ms + delay_ms)
            offered = self._engine.kept.values.take_offered(message)
            if offered is not None:
                self._engine.schedule.pledges.note(scheduled_id, offered[0], lasting=message.persistent)
        except GatewayError as error:
            return error
        return None


def read_delay(properties: Properties) -> int:
    """Return a message's delay in ms; 0 or less: none. Text and fractions count as what they say, as in RabbitMQ's plugin.

    Raises:
        PreconditionFailed: a delay that is no number, or a longer one than `MAX_MS`.
    """
    value = (properties.headers or {}).get(DELAY)
    if value is None:
        return 0
    delay_ms: int | None = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            delay_ms = int(value)
        except (ValueError, OverflowError):
            delay_ms = None
    if delay_ms is None or delay_ms > MAX_MS:
        raise PreconditionFailed(f"invalid header '{DELAY}': a number of ms, at most {MAX_MS}, is allowed, not {str(value)[:40]!r}")
    return delay_ms
