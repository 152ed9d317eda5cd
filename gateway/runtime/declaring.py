"""How are declarations checked, submitted and answered?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gateway.api.channel import Outcome, QueueInfo
from gateway.api.frontend import Authorize, Principal
from gateway.engine.definitions.definitions import CHOSEN_PREFIX
from gateway.engine.engine import Engine
from gateway.engine.route import RouteHandle
from gateway.errors import AccessRefused, GatewayError
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Message
from gateway.runtime.pending import binding_key, exchange_key, queue_key

if TYPE_CHECKING:
    from gateway.runtime.alarms import Alarms
    from gateway.runtime.channel import BrokerChannel
    from gateway.runtime.committer import Committer

OUTCOME_COST_BYTES = 200
"""What an outcome costs in memory until it is told: the journal may take its time."""


class Declaring:
    """The half of a channel that declares, and gives numbers (`gateway.api.Channel` says what each method does)."""

    __slots__ = (
        "_alarms",
        "_authorize",
        "_committer",
        "_engine",
        "_exceptions",
        "_number",
        "_vhost",
        "owner",
        "pending",
    )

    def __init__(
        self,
        engine: Engine,
        principal: Principal,
        owner: object | None,
        committer: Committer,
        alarms: Alarms,
    ) -> None:
        self._engine = engine
        self._authorize: Authorize | None = principal.authorize
        self._vhost = principal.vhost
        self._committer = committer
        self._alarms = alarms
        self.owner: object = owner if owner is not None else self
        self._number = 0
        self.pending = False
        self._exceptions: list[Outcome] = []

    def _check(self, action: str, resource: str, key: str) -> None:
        if self._authorize is not None and not self._authorize(action, resource, key):
            raise AccessRefused(f"no permission to {action} '{resource}'")

    def _submit(self, action: str, resource: str, call: Callable[[], Any]) -> int:
        """Do something whose answer is an outcome."""
        number = self._next()
        try:
            self._check(action, resource, "")
            self._exceptions.append(Outcome(number, result=call()))
        except GatewayError as error:
            self._exceptions.append(Outcome(number, error=error))
        return number

    def _next(self) -> int:
        self._number += 1
        if not self.pending:
            self.pending = True
            self._committer.waiting.append(cast("BrokerChannel", self))
        self._engine.batch.body_bytes += OUTCOME_COST_BYTES
        return self._number

    def refused(self, number: int) -> GatewayError | None:
        """See `gateway.api.Channel.refused`."""
        last = self._exceptions[-1] if self._exceptions else None
        return last.error if last is not None and last.number == number else None

    def result(self, number: int) -> Any:
        """See `gateway.api.Channel.result`."""
        last = self._exceptions[-1] if self._exceptions else None
        return last.result if last is not None and last.number == number else None

    def declare_exchange(self, spec: ExchangeSpec, *, passive: bool = False) -> int:
        """See `gateway.api.Channel.declare_exchange`."""
        return self._submit("configure", spec.name, partial(self._declare_exchange, spec, passive=passive))

    def _declare_exchange(self, spec: ExchangeSpec, *, passive: bool) -> None:
        if not passive:
            self._committer.check_lasting(exchange_key(self._vhost, spec.name))
        self._engine.definitions.declare_exchange(self._vhost, spec, passive=passive)

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> int:
        """See `gateway.api.Channel.delete_exchange`."""
        delete = self._engine.definitions.delete_exchange
        return self._remove("configure", name, partial(delete, self._vhost, name, if_unused=if_unused))

    def declare_queue(self, spec: QueueSpec, *, passive: bool = False, prefix: str = CHOSEN_PREFIX) -> int:
        """See `gateway.api.Channel.declare_queue`."""
        return self._submit("configure", spec.name, partial(self._declare_queue, spec, passive=passive, prefix=prefix))

    def _declare_queue(self, spec: QueueSpec, *, passive: bool, prefix: str) -> QueueInfo:
        if not passive:
            self._committer.check_lasting(queue_key(self._vhost, spec.name))
        return self._engine.definitions.declare_queue(self._vhost, spec, self.owner, passive=passive, prefix=prefix)

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """See `gateway.api.Channel.delete_queue`."""
        delete = self._engine.definitions.delete_queue
        call = partial(delete, self._vhost, name, self.owner, if_unused=if_unused, if_empty=if_empty)
        return self._remove("configure", name, call)

    def purge_queue(self, name: str) -> int:
        """See `gateway.api.Channel.purge_queue`."""
        return self._remove("read", name, partial(self._engine.definitions.purge_queue, self._vhost, name, self.owner))

    def bind(self, binding: Binding) -> int:
        """See `gateway.api.Channel.bind`."""
        return self._submit("read", binding.source, partial(self._bind, binding))

    def _bind(self, binding: Binding) -> None:
        self._check("write", binding.destination, binding.key)
        self._committer.check_lasting(binding_key(self._vhost, binding))
        self._engine.definitions.bind(self._vhost, binding, self.owner)

    def unbind(self, binding: Binding) -> int:
        """See `gateway.api.Channel.unbind`."""
        return self._remove("read", binding.source, partial(self._unbind, binding))

    def _unbind(self, binding: Binding) -> None:
        self._check("write", binding.destination, binding.key)
        self._engine.definitions.unbind(self._vhost, binding, self.owner)

    def _remove(self, action: str, resource: str, call: Callable[[], Any]) -> int:
        return self._submit(action, resource, partial(self._alarms.removing, call))

    def refusal(self, route: RouteHandle) -> GatewayError | None:
        """See `gateway.api.Channel.refusal`."""
        if route.generation != self._engine.generation:
            self._engine.resolve(route, Message(route.address, b""))
        return route.refusal

    def reaches(self, route: RouteHandle) -> bool:
        """See `gateway.api.Channel.reaches`."""
        if route.generation != self._engine.generation:
            self._engine.resolve(route, Message(route.address, b""))
        return route.matched

    def bindings(self, destination: str, *, to_exchange: bool = False) -> list[Binding]:
        """See `gateway.api.Channel.bindings`."""
        return self._engine.vhost(self._vhost).table.bindings_of(destination, to_exchange=to_exchange)

    def queue_exists(self, name: str) -> bool:
        """See `gateway.api.Channel.queue_exists`."""
        return name in self._engine.vhost(self._vhost).queues

    def queue_info(self, name: str) -> QueueInfo | None:
        """See `gateway.api.Channel.queue_info`."""
        queue = self._engine.vhost(self._vhost).queues.get(name)
        return None if queue is None else QueueInfo(name, queue.ready_count, len(queue.consumers), queue.body_bytes)
