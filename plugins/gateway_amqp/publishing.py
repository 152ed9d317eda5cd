"""What becomes of a client's publishes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from gateway.api import (
    NEVER,
    Channel,
    Gateway,
    Message,
    Principal,
    Route,
    make_room,
)
from gateway_amqp.codec.content import Facts, facts, replace_reply_to
from gateway_amqp.codec.methods import decode, encode, publish_arguments
from gateway_amqp.codec.names import (
    BASIC_PUBLISH,
    CONFIRM_SELECT,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    TX_COMMIT,
    TX_ROLLBACK,
    TX_SELECT,
    HardError,
    SoftError,
)
from gateway_amqp.confirms import Confirms
from gateway_amqp.copies import copy_keys, without_blind
from gateway_amqp.direct_reply import NAME as DIRECT
from gateway_amqp.expiration import milliseconds
from gateway_amqp.lasting import HEADER as RETAIN
from gateway_amqp.lasting import check_kept, retain_of, without_retain
from gateway_amqp.telling import Telling
from gateway_amqp.transaction import Transaction
from gateway_amqp.translate.properties import WIRE_TAG

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel

MOST_WAYS: Final = 20_000
"""Arguments of Basic.Publish that are remembered, of all connections of a principal."""
_DIRECT: Final = DIRECT.encode()
_MANDATORY: Final = 1
_IMMEDIATE: Final = 2


class Way:
    """Where a Basic.Publish with certain arguments goes."""

    __slots__ = ("mandatory", "route")

    def __init__(self, route: Route, mandatory: bool) -> None:
        self.route: Route = route
        self.mandatory: bool = mandatory


class Publishing(Telling):
    """The publishes of one channel, on a channel of the gateway of their own: its numbers are nothing else (an `OutcomeSink`).

    What the properties say is kept until others come: who publishes much says the same each time.
    """

    __slots__ = (
        "_also",
        "_channel",
        "_facts",
        "_gateway",
        "_principal",
        "_raw",
        "_retain",
        "_special",
        "_ttl_ms",
        "_ways",
        "_wire",
    )

    def __init__(self, amqp: AmqpChannel) -> None:
        super().__init__(amqp)
        self._gateway: Gateway = amqp.gateway
        self._principal: Principal = amqp.principal
        self._ways: dict[bytes, Way] = amqp.principal.cache.setdefault("amqp.ways", {})
        self._channel: Channel | None = None
        self._raw: bytes = b""
        self._wire: bytes = b""
        self._facts: Facts = Facts()
        self._ttl_ms: int = NEVER
        self._also: tuple[str, ...] = ()
        self._retain: bool = False
        self._special: bool = False

    # -- in -----------------------------------------------------------------

    def publish(self, arguments: bytes, properties: bytes, body: bytes) -> None:
        """Take a Basic.Publish: what follows the method's id, the properties from their flags on, the body.

        Raises:
            SoftError: the channel is to be closed.
            HardError: the connection is.
        """
        way = self._ways.get(arguments)
        if way is None:
            way = self._find(arguments)
        if properties != self._raw:
            self._read(properties)
        if self._special:
            self._publish_special(way, body)
            return
        said = self._facts
        route = way.route
        message = Message(route.address, body, said.persistent, WIRE_TAG, self._wire, said.priority)
        if self._ttl_ms >= 0:
            message.expires_at_ms = self._gateway.now_ms() + self._ttl_ms
        self._submit(route, message, way.mandatory)

    def _publish_special(self, way: Way, body: bytes) -> None:
        """Publish what is of a transaction, goes to other keys too, is a last value, or wants its answer by direct reply-to."""
        said = self._facts
        if self._retain:
            check_kept(way.route.address)
        wire = self._wire
        if said.reply_to == _DIRECT:
            wire = replace_reply_to(wire, self._amqp.direct_reply.address())
        route = way.route
        if self._also:
            where = route.address
            route = (self._channel or self._open()).route(where.exchange, where.routing_key, also=self._also)
        message = Message(route.address, body, said.persistent, WIRE_TAG, wire, said.priority)
        transaction = self._amqp.transaction
        if transaction is not None:
            if self._retain:
                raise SoftError(PRECONDITION_FAILED, "what is published in a transaction can't be a last value", BASIC_PUBLISH)
            transaction.publish(route, message, way.mandatory, self._ttl_ms)
            return
        if self._ttl_ms >= 0:
            message.expires_at_ms = self._gateway.now_ms() + self._ttl_ms
        if self._retain:
            (self._channel or self._open()).retain(way.route, message)  # with the publish that comes next
        self._submit(route, message, way.mandatory)

    def _submit(self, route: Route, message: Message, mandatory: bool) -> None:
        channel = self._channel or self._open()
        number = self._last = channel.publish(route, message)
        if mandatory:
            self._kept[number] = message
        refusal = channel.refused(number)
        if refusal is not None and self._ends(refusal, number):
            self._amqp.fail(refusal, BASIC_PUBLISH)  # behind what is still to be told; nothing more is taken

    def _open(self) -> Channel:
        channel = self._channel = self._gateway.open_channel(self._principal, self, owner=self._amqp.link)
        return channel

    # -- what is the same for many ------------------------------------------

    def _find(self, arguments: bytes) -> Way:
        exchange, key, bits = publish_arguments(arguments)
        if bits & _IMMEDIATE:
            raise HardError(NOT_IMPLEMENTED, "immediate=true", BASIC_PUBLISH)
        channel = self._channel or self._open()
        way = Way(channel.route(exchange, key), bits & _MANDATORY != 0)
        make_room(self._ways, MOST_WAYS)
        self._ways[arguments] = way
        return way

    def _read(self, properties: bytes) -> None:
        """Look at properties that are not those of the message before."""
        said = facts(properties)
        ttl_ms = NEVER
        also: tuple[str, ...] = ()
        wire = properties
        retain = False
        if said.user_id is not None:
            self._check_user(said.user_id)
        if said.expiration is not None:
            ttl_ms = milliseconds(said.expiration)
        if said.headers is not None:
            also = copy_keys(properties, said.headers[0], said.headers[1])
            wire = without_blind(properties)
            if RETAIN in properties:
                retain = retain_of(properties, said.headers[0], said.headers[1])
                wire = without_retain(wire)
        self._facts = said
        self._ttl_ms = ttl_ms
        self._also = also
        self._wire = wire
        self._retain = retain
        self._special = bool(also) or retain or said.reply_to == _DIRECT or self._amqp.transaction is not None
        self._raw = properties

    def _check_user(self, claimed: bytes) -> None:
        user = self._principal.user
        if claimed != user.encode():
            text = f"user_id property set to '{claimed.decode('utf-8', 'replace')}' but authenticated user was '{user}'"
            raise SoftError(PRECONDITION_FAILED, text, BASIC_PUBLISH)

    # -- modes --------------------------------------------------------------

    def confirm_select(self, arguments: bytes) -> None:
        """Confirm what is published from now on; saying so again changes nothing.

        Raises:
            SoftError: the channel is transactional.
        """
        command = decode(CONFIRM_SELECT, arguments)
        if self._amqp.transaction is not None:
            raise SoftError(PRECONDITION_FAILED, "cannot switch from tx to confirm mode", CONFIRM_SELECT)
        begins = self._confirms is None
        if not command.nowait:
            self._select(encode(self._amqp.number, commands.Confirm.SelectOk()), begins)
        if begins:
            self._confirms = Confirms(self._amqp.number, self._last)

    def tx_select(self, arguments: bytes) -> None:
        """Collect what is published and acknowledged from now on; saying so again changes nothing.

        Raises:
            SoftError: the channel confirms.
        """
        decode(TX_SELECT, arguments)
        amqp = self._amqp
        if self._confirms is not None:
            raise SoftError(PRECONDITION_FAILED, "cannot switch from confirm to tx mode", TX_SELECT)
        self._select(encode(amqp.number, commands.Tx.SelectOk()), amqp.transaction is None)
        if amqp.transaction is None:
            amqp.transaction = Transaction(amqp)
            self._raw = b""  # whatever comes is special now

    def _select(self, answer: bytes, begins: bool) -> None:
        """Answer a Select, behind what comes back of what was published before it."""
        if begins and self._kept and self._channel is not None:
            self._selected_at = self._last = self._channel.barrier()
        if self._selected_at:
            self._selected += answer
        else:
            self._amqp.answer(answer)

    def tx_commit(self, arguments: bytes) -> None:
        """Do what was collected, all of it or nothing.

        Raises:
            SoftError: the channel is not transactional.
        """
        decode(TX_COMMIT, arguments)
        self._transaction(TX_COMMIT).commit()

    def tx_rollback(self, arguments: bytes) -> None:
        """Forget what was published, and take acknowledgements back.

        Raises:
            SoftError: the channel is not transactional.
        """
        decode(TX_ROLLBACK, arguments)
        self._transaction(TX_ROLLBACK).rollback()

    def _transaction(self, method: int) -> Transaction:
        transaction = self._amqp.transaction
        if transaction is None:
            raise SoftError(PRECONDITION_FAILED, "channel is not transactional", method)
        return transaction

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """The channel is over."""
        transaction = self._amqp.transaction
        if transaction is not None:
            transaction.close()
        self._kept.clear()
        if self._channel is not None:
            self._channel.close()


METHODS: Final[dict[int, Callable[[Publishing, bytes], Any]]] = {
    CONFIRM_SELECT: Publishing.confirm_select,
    TX_SELECT: Publishing.tx_select,
    TX_COMMIT: Publishing.tx_commit,
    TX_ROLLBACK: Publishing.tx_rollback,
}
