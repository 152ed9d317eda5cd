"""What has a client subscribed to, and what is it told?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.api import BindingOptions, Outcome
from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.fields import is_shared
from gateway_mqtt.codec.names import MQTT_5, SERVER, UNSUBACK
from gateway_mqtt.codec.packets import FAILURE, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from gateway_mqtt.shared import Member, Wish
from gateway_mqtt.sys_topics import NONE, Stock
from gateway_mqtt.translate.refusals import reason_code
from gateway_mqtt.translate.sessions import split_shared, subscribed, subscription

if TYPE_CHECKING:
    from gateway_mqtt.link import Link


class _Request:
    """A SUBSCRIBE or UNSUBSCRIBE that is not answered yet.

    Args:
        mark: what is retained later comes live.

    ``codes``: reason codes of MQTT 5, one per filter. ``fresh``: which of them were not there before. ``left``: outcomes to come.
    ``refused``: how many filters were refused, by why.
    """

    __slots__ = ("codes", "fresh", "left", "mark", "packet_id", "refused", "subscription_ids", "wanted")

    def __init__(self, packet_id: int, wanted: tuple[Subscription, ...], subscription_ids: tuple[int, ...], mark: int) -> None:
        self.packet_id: int = packet_id
        self.wanted: tuple[Subscription, ...] = wanted
        self.subscription_ids: tuple[int, ...] = subscription_ids
        self.mark: int = mark
        self.codes: list[int] = [reasons.UNSPECIFIED_ERROR] * len(wanted)
        self.fresh: set[int] = set()
        self.left: int = 0
        self.refused: dict[str, int] = {}

    def refuse(self, index: int, code: int, reason: str) -> None:
        self.codes[index] = code
        self.refused[reason] = self.refused.get(reason, 0) + 1


class Subscriptions:
    """A client's subscriptions; shared ones are among them, under their whole filter."""

    __slots__ = ("_counted", "_filters", "_levels", "_limit", "_link", "_member", "_most_levels", "_pending")

    def __init__(self, link: Link) -> None:
        self._link: Link = link
        self._limit: int = link.broker.settings.max_subscriptions
        self._most_levels: int = link.broker.settings.max_subscription_levels
        self._levels: int = 0
        self._filters: set[str] = set()
        self._member: Member | None = None
        self._pending: set[int] = set()
        self._counted = NONE

    @property
    def stock(self) -> Stock:
        """How many there are."""
        return Stock(len(self._filters), len(self._member.patterns()) if self._member is not None else 0)

    def _count(self, now: Stock) -> None:
        """Have the broker know how many there are."""
        self._link.broker.traffic.subscribed(now.all - self._counted.all, now.shared - self._counted.shared)
        self._counted = now

    def resume(self) -> bool:
        """Go on with the subscriptions of a session that was there; return whether there are any."""
        link = self._link
        for pattern, options in subscribed(link.channel, link.queue):
            self._added(pattern, options)
        if link.broker.shares.wishes(link.channel, link.session.key):
            member = self._shared()
            member.resume()
            for pattern in member.patterns():
                self._note(pattern)
        self._count(self.stock)
        return bool(self._filters)

    def end(self) -> Stock:
        """The connection has ended, its channel is about to be closed; return how many subscriptions there were."""
        stock = self.stock
        self._count(NONE)
        if self._member is not None:
            self._member.away()
        return stock

    def _shared(self) -> Member:
        """Return the client's part in shared subscriptions, made with the first one."""
        if self._member is None:
            link = self._link
            self._member = Member(
                link.broker.shares,
                link.broker.gateway,
                link.channel,
                link.inbound.expect,
                link.outbound,
                link.session.key,
                link.queue,
                lasts=link.durable,
            )
        return self._member

    def _note(self, pattern: str) -> None:
        if pattern not in self._filters:
            self._filters.add(pattern)
            self._levels += _levels(pattern)

    def _forget(self, pattern: str) -> None:
        if pattern in self._filters:
            self._filters.discard(pattern)
            self._levels -= _levels(pattern)

    def _added(self, pattern: str, options: BindingOptions) -> None:
        self._note(pattern)
        if options.no_local:
            self._link.inbound.keep_from(self._link.queue)

    # -- SUBSCRIBE ----------------------------------------------------------

    def subscribe(self, packet: Subscribe) -> None:
        """Bind each filter; the SUBACK comes when all are on disk or refused [MQTT-3.8.4-1] [MQTT5-3.8.4-1]."""
        link = self._link
        request = _Request(packet.packet_id, packet.filters, packet.properties.subscription_ids, link.channel.retained_mark())
        if self._is_taken(packet.packet_id):
            self._answer(request, [reasons.PACKET_IDENTIFIER_IN_USE] * len(packet.filters))
            return
        self._pending.add(packet.packet_id)
        request.left = 1  # nothing is answered before all are submitted
        for index, wanted in enumerate(packet.filters):  # [MQTT-3.8.4-4] [MQTT5-3.8.4-5]
            if index >= self._limit or (len(self._filters) >= self._limit and wanted.pattern not in self._filters):
                for rest in range(index, len(packet.filters)):
                    request.refuse(rest, reasons.QUOTA_EXCEEDED, f"more than {self._limit} subscriptions")
                break
            code, reason = self._refusal(wanted.pattern, request)
            if code:
                request.refuse(index, code, reason)
            else:
                self._submit(request, index, self._granted(wanted))
        self._one_less(request)

    def _granted(self, wanted: Subscription) -> Subscription:
        """Return a subscription as it is granted [MQTT-3.8.4-6] [MQTT5-3.8.4-7]; a bridge wants nothing back."""
        qos = min(wanted.qos, self._link.broker.settings.maximum_qos)  # [MQTT5-3.2.2-10]
        if self._link.bridge:
            return replace(wanted, qos=qos, no_local=True, retain_as_published=True)
        return wanted if qos == wanted.qos else replace(wanted, qos=qos)

    def _is_taken(self, packet_id: int) -> bool:
        """Say whether an MQTT 5 client uses an identifier that is not free [MQTT5-2.2.1-4]."""
        link = self._link
        if link.level != MQTT_5:
            return False
        return packet_id in self._pending or (link.store is not None and link.store.was_received(packet_id))

    def _refusal(self, pattern: str, request: _Request) -> tuple[int, str]:
        """Return why this broker refuses a well-formed topic filter, and 0 if it does not."""
        broker = self._link.broker
        settings = broker.settings
        if request.subscription_ids and not settings.subscription_identifiers:
            return reasons.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, "subscription identifiers are switched off"
        if is_shared(pattern):
            shared = split_shared(pattern)
            if not settings.shared_subscriptions:
                return reasons.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "shared subscriptions are switched off"
            if shared is None:
                return reasons.TOPIC_FILTER_INVALID, "a shared subscription without a name or a filter"
        if not settings.wildcards and ("+" in pattern or "#" in pattern):
            return reasons.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED, "wildcards are switched off"
        if pattern not in self._filters and self._levels + _levels(pattern) > self._most_levels:
            return reasons.QUOTA_EXCEEDED, f"subscriptions of more than {self._most_levels} levels"
        excess = broker.topic_limits.excess(pattern)
        return (reasons.TOPIC_FILTER_INVALID, excess) if excess else (0, "")

    def _submit(self, request: _Request, index: int, wanted: Subscription) -> None:
        link = self._link
        pattern = wanted.pattern
        if pattern not in self._filters:
            request.fresh.add(index)
            self._note(pattern)
        request.left += 1
        then = partial(self._bound, request, index, wanted)
        binding = subscription(link.queue, wanted, request.subscription_ids)
        if not link.declared:
            link.declare(self._declared)
            link.consume(self._consuming)
        if is_shared(pattern):
            wish = Wish(pattern, wanted.qos, request.subscription_ids, wanted.retain_as_published)
            self._shared().join(wish, lambda error: then(Outcome(0, error)))
            return
        if wanted.no_local:  # from now on, not from the SUBACK on: messages are routed at once [MQTT5-3.8.3-3]
            link.inbound.keep_from(link.queue)
        link.inbound.expect(link.channel.bind(binding), then)  # in place of what there was [MQTT-3.8.4-3] [MQTT5-3.8.4-3]

    def _declared(self, outcome: Outcome) -> None:
        """The queue of a session that does not last is made with its first subscription."""
        if outcome.error is not None:
            self._link.declared = False  # the filters are refused, as there is nothing to bind; the next SUBSCRIBE tries again

    def _consuming(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self._link.outbound.open(outcome.result)

    def _bound(self, request: _Request, index: int, wanted: Subscription, outcome: Outcome) -> None:
        if outcome.error is None:
            request.codes[index] = wanted.qos
            options = subscription("", wanted, request.subscription_ids).options
            self._added(wanted.pattern, options)
        else:
            if index in request.fresh:
                self._forget(wanted.pattern)
            request.refuse(index, reason_code(outcome.error), outcome.error.text)
        self._one_less(request)

    def _one_less(self, request: _Request) -> None:
        request.left -= 1
        if not request.left:
            self._pending.discard(request.packet_id)
            self._answer(request, request.codes)

    def _answer(self, request: _Request, codes: list[int]) -> None:
        """Send the SUBACK [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT5-3.8.4-6], then what was retained."""
        link = self._link
        if link.is_over:
            return
        self._count(self.stock)
        told = codes if link.level == MQTT_5 else [min(code, FAILURE) for code in codes]
        # It has the request's identifier [MQTT-2.3.1-7] [MQTT5-2.2.1-6], and nothing that could be too large [MQTT5-3.9.2-1]
        # [MQTT5-3.9.2-2].
        link.send(SubAck(request.packet_id, bytes(told)))
        for index, (wanted, code) in enumerate(zip(request.wanted, codes, strict=True)):
            if code < FAILURE:
                link.outbound.want_retained(wanted, code, request.mark, request.subscription_ids, new=index in request.fresh)
        if request.refused:
            gateway = link.broker.gateway
            gateway.count("subscriptions_refused", sum(request.refused.values()))
            gateway.log.warning(
                "subscriptions were refused", client=link.session.client_id, peer=link.connection.peer, reasons=request.refused
            )

    # -- UNSUBSCRIBE --------------------------------------------------------

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Unbind each filter; the UNSUBACK comes even if none was there [MQTT-3.10.4-5] [MQTT5-3.10.4-5]."""
        link = self._link
        wanted = tuple(Subscription(pattern, 0) for pattern in packet.filters)
        request = _Request(packet.packet_id, wanted, (), 0)
        if self._is_taken(packet.packet_id):
            link.send(UnsubAck(packet.packet_id, bytes([reasons.PACKET_IDENTIFIER_IN_USE] * len(wanted))))
            return
        self._pending.add(packet.packet_id)
        request.left = 1
        for index, pattern in enumerate(packet.filters):  # [MQTT-3.10.4-6] [MQTT5-3.10.4-6]
            if pattern not in self._filters:  # [MQTT-3.10.4-1] [MQTT5-3.10.4-1]
                request.codes[index] = reasons.NO_SUBSCRIPTION_EXISTED
                continue
            self._forget(pattern)
            request.left += 1
            self._withdraw(pattern, partial(self._unbound, request, index))
        self._unsubscribed(request)

    def _withdraw(self, pattern: str, then: Callable[[Outcome], None]) -> None:
        link = self._link
        if self._member is not None and self._member.leave(pattern):
            link.inbound.expect(link.channel.barrier(), then)
            return
        # What was sent is brought to its end [MQTT-3.10.4-3] [MQTT5-3.10.4-3], nothing more begins.
        link.outbound.unwant_retained(pattern)  # [MQTT-3.10.4-2] [MQTT5-3.10.4-2]
        link.inbound.expect(link.channel.unbind(subscription(link.queue, Subscription(pattern, 0))), then)

    def _unbound(self, request: _Request, index: int, outcome: Outcome) -> None:
        if outcome.error is None:
            request.codes[index] = reasons.SUCCESS
        else:
            self._note(request.wanted[index].pattern)  # it is still there
            code = reason_code(outcome.error)
            request.codes[index] = code if reasons.may_carry(UNSUBACK, code, SERVER) else reasons.UNSPECIFIED_ERROR
        self._unsubscribed(request)

    def _unsubscribed(self, request: _Request) -> None:
        request.left -= 1
        if request.left:
            return
        self._pending.discard(request.packet_id)
        if not self._link.is_over:
            self._count(self.stock)
            # [MQTT-3.10.4-4] [MQTT5-3.10.4-4] [MQTT5-3.11.3-1] [MQTT5-3.11.2-1] [MQTT5-3.11.2-2]
            self._link.send(UnsubAck(request.packet_id, bytes(request.codes)))


def _levels(pattern: str) -> int:
    return pattern.count("/") + 1
