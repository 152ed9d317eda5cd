"""Which exchanges and queues must be there for an endpoint, and how do they come to be?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.api import (
    DEFAULT_EXCHANGE,
    Binding,
    Channel,
    ConfigError,
    ExchangeSpec,
    GatewayError,
    NotFound,
    PreconditionFailed,
    queue_spec,
)
from gateway_zeromq.settings import SETTING, AnyEndpoint
from gateway_zeromq.settings.common import BindingTable


class Declarations:
    """What one endpoint's settings name; of all endpoints the exchanges come first.

    Args:
        name: of the endpoint.
        settings: of the endpoint.
        channel: declares; without a sink of outcomes.
    """

    def __init__(self, name: str, settings: AnyEndpoint, channel: Channel) -> None:
        self._name = name
        self._settings = settings
        self._channel = channel

    async def exchanges(self) -> None:
        """Make the exchanges that the settings name, if they are missing. Errors and cancellation as `queues`."""
        for name, kind in self._settings.exchanges():
            with self._conflicts(f"exchange {name!r}"):
                await self._exchange(name, kind)

    async def _exchange(self, name: str, kind: str | None) -> None:
        if kind is None:
            if name == DEFAULT_EXCHANGE:
                return
            try:
                await self._channel.outcome(self._channel.declare_exchange(ExchangeSpec(name), passive=True))
            except NotFound:
                kind = "topic"
        if kind is not None:
            await self._channel.outcome(self._channel.declare_exchange(ExchangeSpec(name, kind)))

    async def queues(self) -> None:
        """Make the queues that the settings name, and their bindings, if they are missing.

        Raises:
            ConfigError: what exists is different, or it can't be made; names both.
        Cancellation: safe; what was declared stays.
        """
        for wanted in self._settings.queues():
            with self._conflicts(f"queue {wanted.name!r}"):
                await self._channel.outcome(self._channel.declare_queue(queue_spec(wanted.name, arguments=wanted.arguments)))
            for table in wanted.bindings:
                await self._bind_queue(wanted.name, table)

    async def _bind_queue(self, queue: str, table: BindingTable) -> None:
        key = self._settings.spelled(table.get("key", ""))
        with self._conflicts(f"binding of queue {queue!r} to exchange {table['exchange']!r}", is_there=False):
            await self._exchange(table["exchange"], None)
            await self._channel.outcome(
                self._channel.bind(Binding(table["exchange"], queue, key, arguments=table.get("arguments", {})))
            )

    @contextmanager
    def _conflicts(self, what: str, *, is_there: bool = True) -> Iterator[None]:
        try:
            yield
        except GatewayError as error:
            wrong = "and what exists don't agree on" if is_there and isinstance(error, PreconditionFailed) else "can't have its"
            raise ConfigError(f"ZeroMQ endpoint {self._name!r} ({SETTING}) {wrong} {what}: {error.text}") from error
