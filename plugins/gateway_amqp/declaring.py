"""Which exchanges, queues and bindings does an AMQP client declare and delete on one channel?"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands
from pamqp.base import Frame

from gateway.api import (
    Binding,
    ExchangeSpec,
    NotFound,
    Outcome,
    QueueInfo,
    QueueSpec,
    exchange_spec,
    queue_spec,
    unknown_exchange_arguments,
    unknown_queue_arguments,
)
from gateway_amqp.arguments import check_exchange, check_queue
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    ACCESS_REFUSED,
    EXCHANGE_BIND,
    EXCHANGE_DECLARE,
    EXCHANGE_DELETE,
    EXCHANGE_UNBIND,
    FRAME_END,
    NOT_FOUND,
    QUEUE_BIND,
    QUEUE_DECLARE,
    QUEUE_DECLARE_OK,
    QUEUE_DELETE,
    QUEUE_PURGE,
    QUEUE_UNBIND,
    SoftError,
)
from gateway_amqp.codec.tables import decode_table, short
from gateway_amqp.direct_reply import NAME as DIRECT_REPLY
from gateway_amqp.translate.tables import common_table

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel

RESERVED: Final = "amq."
MOST_NOTED: Final = 1_000
"""Arguments without a meaning that are said in the log, for each user and virtual host."""
_NOTED: Final = "amqp.unknown-arguments"
_MOST: Final = 0xFFFFFFFF
_METHOD: Final = struct.Struct(">BHII")
_COUNTS: Final = struct.Struct(">IIB")
_STRIPPED: Final = str.maketrans("", "", "\r\n")


class Declaring:
    """The declarations of one channel. ``last``: the queue that it declared last, which an empty name means."""

    __slots__ = ("_amqp", "last")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        self.last: str = ""

    def named(self, queue: str) -> str:
        """Return the name of a queue; an empty one means the queue that was declared last.

        Raises:
            SoftError: 404, none was.
        """
        if queue:
            return queue
        if not self.last:
            raise SoftError(NOT_FOUND, "no previously declared queue")
        return self.last

    # -- exchanges ----------------------------------------------------------

    def declare_exchange(self, arguments: bytes) -> None:
        """Exchange.Declare."""
        command: commands.Exchange.Declare = decode(EXCHANGE_DECLARE, arguments)
        name = command.exchange.translate(_STRIPPED)
        if command.passive:
            _check_not_default(name)
            spec = ExchangeSpec(name)
        else:
            spec = self._exchange_spec(name, command)
        number = self._amqp.channel.declare_exchange(spec, passive=command.passive)
        self._expect(number, command.nowait, commands.Exchange.DeclareOk(), EXCHANGE_DECLARE)

    def _exchange_spec(self, name: str, command: commands.Exchange.Declare) -> ExchangeSpec:
        given = common_table(command.arguments or {})
        check_exchange(given, name, self._amqp.principal.vhost)
        spec = exchange_spec(
            name,
            command.exchange_type,
            durable=command.durable,
            auto_delete=command.auto_delete,
            internal=command.internal,
            arguments=given,
            unknown="keep",
        )
        self.note("exchange", unknown_exchange_arguments(given))
        return spec

    def delete_exchange(self, arguments: bytes) -> None:
        """Exchange.Delete. What is absent is deleted."""
        command: commands.Exchange.Delete = decode(EXCHANGE_DELETE, arguments)
        name = command.exchange.translate(_STRIPPED)
        _check_not_default(name)
        if name.startswith(RESERVED):
            where = f"exchange '{name}' in vhost '{self._amqp.principal.vhost}'"
            raise SoftError(ACCESS_REFUSED, f"deletion of system {where} not allowed")
        number = self._amqp.channel.delete_exchange(name, if_unused=command.if_unused)
        self._expect_gone(number, command.nowait, commands.Exchange.DeleteOk(), EXCHANGE_DELETE)

    def bind_exchange(self, arguments: bytes) -> None:
        """Exchange.Bind."""
        command: commands.Exchange.Bind = decode(EXCHANGE_BIND, arguments)
        number = self._amqp.channel.bind(_between_exchanges(command, _matched(arguments, 1)))
        self._expect(number, command.nowait, commands.Exchange.BindOk(), EXCHANGE_BIND)

    def unbind_exchange(self, arguments: bytes) -> None:
        """Exchange.Unbind. What is not bound is unbound."""
        command: commands.Exchange.Unbind = decode(EXCHANGE_UNBIND, arguments)
        number = self._amqp.channel.unbind(_between_exchanges(command, _matched(arguments, 1)))
        self._expect_gone(number, command.nowait, commands.Exchange.UnbindOk(), EXCHANGE_UNBIND)

    # -- queues -------------------------------------------------------------

    def declare_queue(self, arguments: bytes) -> None:
        """Queue.Declare."""
        command: commands.Queue.Declare = decode(QUEUE_DECLARE, arguments)
        amqp = self._amqp
        name = command.queue.translate(_STRIPPED)
        if name.startswith(DIRECT_REPLY):
            self._declare_reply(name, command.nowait)
            return
        spec = QueueSpec(name) if command.passive else self._queue_spec(name, command)
        number = amqp.channel.declare_queue(spec, passive=command.passive)
        if amqp.channel.refused(number) is None:
            self.last = name or amqp.channel.result(number).name
        amqp.expect(number, partial(self._declared, command.nowait), QUEUE_DECLARE)

    def _queue_spec(self, name: str, command: commands.Queue.Declare) -> QueueSpec:
        given = common_table(command.arguments or {})
        check_queue(given, name, self._amqp.principal.vhost)
        spec = queue_spec(
            name,
            durable=command.durable and not command.exclusive,
            exclusive=command.exclusive,
            auto_delete=command.auto_delete,
            arguments=given,
            unknown="keep",
        )
        self.note("queue", unknown_queue_arguments(given))
        return spec

    def note(self, of: str, arguments: list[str]) -> None:
        """Say once of each argument that it has no meaning: programs are taken as they are, but not in silence."""
        principal = self._amqp.principal
        noted: set[str] = principal.cache.setdefault(_NOTED, set())
        for argument in arguments:
            if argument not in noted and len(noted) < MOST_NOTED:
                noted.add(argument)
                self._amqp.gateway.log.warning("an argument has no meaning here", argument=argument, of=of, vhost=principal.vhost)

    def _declare_reply(self, name: str, nowait: bool) -> None:
        """Say whether somebody waits for answers under this name; it has no messages, and one consumer."""
        amqp = self._amqp
        if not amqp.direct_reply.exists(name):
            raise SoftError(NOT_FOUND, f"no queue '{name}' in vhost '{amqp.principal.vhost}'")
        self.last = name
        if not nowait:
            amqp.answer(queue_declared(amqp.number, name, 0, 1))

    def _declared(self, nowait: bool, outcome: Outcome) -> None:
        if not nowait:
            info: QueueInfo = outcome.result
            self._amqp.send(queue_declared(self._amqp.number, info.name, info.messages, info.consumers))

    def delete_queue(self, arguments: bytes) -> None:
        """Queue.Delete. What is absent is deleted, with no messages."""
        command: commands.Queue.Delete = decode(QUEUE_DELETE, arguments)
        amqp = self._amqp
        name = self.named(command.queue.translate(_STRIPPED))
        number = amqp.channel.delete_queue(name, if_unused=command.if_unused, if_empty=command.if_empty)
        if isinstance(amqp.channel.refused(number), NotFound):
            if not command.nowait:
                amqp.answer(encode(amqp.number, commands.Queue.DeleteOk(0)))
            return
        amqp.expect(number, partial(self._deleted, command.nowait), QUEUE_DELETE)

    def _deleted(self, nowait: bool, outcome: Outcome) -> None:
        if not nowait:
            self._send(commands.Queue.DeleteOk(outcome.result))

    def purge_queue(self, arguments: bytes) -> None:
        """Queue.Purge."""
        command: commands.Queue.Purge = decode(QUEUE_PURGE, arguments)
        number = self._amqp.channel.purge_queue(self.named(command.queue))
        self._amqp.expect(number, partial(self._purged, command.nowait), QUEUE_PURGE)

    def _purged(self, nowait: bool, outcome: Outcome) -> None:
        if not nowait:
            self._send(commands.Queue.PurgeOk(outcome.result))

    def bind_queue(self, arguments: bytes) -> None:
        """Queue.Bind."""
        command: commands.Queue.Bind = decode(QUEUE_BIND, arguments)
        number = self._amqp.channel.bind(self._to_queue(command, _matched(arguments, 1)))
        self._expect(number, command.nowait, commands.Queue.BindOk(), QUEUE_BIND)

    def unbind_queue(self, arguments: bytes) -> None:
        """Queue.Unbind. What is not bound is unbound."""
        command: commands.Queue.Unbind = decode(QUEUE_UNBIND, arguments)
        number = self._amqp.channel.unbind(self._to_queue(command, _matched(arguments, 0)))
        self._expect_gone(number, False, commands.Queue.UnbindOk(), QUEUE_UNBIND)

    def _to_queue(self, command: Any, wanted: dict[str, Any]) -> Binding:
        queue, key = self.named(command.queue), command.routing_key
        if not command.queue and not key:
            key = queue
        source = command.exchange.translate(_STRIPPED)
        _check_not_default(source)
        return Binding(source, queue.translate(_STRIPPED), key, arguments=wanted)

    # -- answers ------------------------------------------------------------

    def _expect(self, number: int, nowait: bool, ok: Frame, method: int) -> None:
        """Answer when it is done."""
        self._amqp.expect(number, partial(self._done, None if nowait else ok), method)

    def _expect_gone(self, number: int, nowait: bool, ok: Frame, method: int) -> None:
        """Answer when it is done, or as it was done already."""
        amqp = self._amqp
        if not isinstance(amqp.channel.refused(number), NotFound):
            self._expect(number, nowait, ok, method)
        elif not nowait:
            amqp.answer(encode(amqp.number, ok))

    def _done(self, ok: Frame | None, outcome: Outcome) -> None:
        if ok is not None:
            self._send(ok)

    def _send(self, command: Frame) -> None:
        amqp = self._amqp
        amqp.send(encode(amqp.number, command))


def queue_declared(channel: int, queue: str, messages: int, consumers: int) -> bytes:
    """Return a Queue.DeclareOk: pamqp makes none for every name that a queue may have."""
    name = short(queue)
    front = _METHOD.pack(1, channel, 12 + len(name), QUEUE_DECLARE_OK)
    return front + name + _COUNTS.pack(min(messages, _MOST), min(consumers, _MOST), FRAME_END)


def _matched(arguments: bytes, bits: int) -> dict[str, Any]:
    """Return the arguments of a binding as a message's headers are read, that one may be the same as the other.

    Args:
        arguments: a ticket, three names, and the table, which were decoded once.
        bits: octets before the table.
    """
    at = 2
    for _ in range(3):
        at += 1 + arguments[at]
    return common_table(decode_table(arguments, at + bits, faithful=True))


def _between_exchanges(command: Any, wanted: dict[str, Any]) -> Binding:
    source, destination = command.source.translate(_STRIPPED), command.destination.translate(_STRIPPED)
    _check_not_default(destination)
    _check_not_default(source)
    return Binding(source, destination, command.routing_key, to_exchange=True, arguments=wanted)


def _check_not_default(exchange: str) -> None:
    if not exchange:
        raise SoftError(ACCESS_REFUSED, "operation not permitted on the default exchange")


METHODS: Final[dict[int, Callable[[Declaring, bytes], None]]] = {
    EXCHANGE_DECLARE: Declaring.declare_exchange,
    EXCHANGE_DELETE: Declaring.delete_exchange,
    EXCHANGE_BIND: Declaring.bind_exchange,
    EXCHANGE_UNBIND: Declaring.unbind_exchange,
    QUEUE_DECLARE: Declaring.declare_queue,
    QUEUE_BIND: Declaring.bind_queue,
    QUEUE_PURGE: Declaring.purge_queue,
    QUEUE_DELETE: Declaring.delete_queue,
    QUEUE_UNBIND: Declaring.unbind_queue,
}
