"""Does the simulation find a fault of AMQP's front-end that somebody has planted?"""

from __future__ import annotations

import pytest

from gateway.api import Outcome, queue_spec
from gateway.engine.transacting import Transacting
from gateway.journal.memory import MemoryJournal
from gateway.model.records import Bound, QueueDeleted, Retained, Unbound
from gateway_amqp import consuming, declaring, publishing
from gateway_amqp.channel import AmqpChannel
from gateway_amqp.codec import names
from gateway_amqp.confirms import Confirms
from gateway_amqp.consuming import FULL, Consuming
from gateway_amqp.consumption import Consumption
from gateway_amqp.direct_reply import DirectReply
from gateway_amqp.protocol import Protocol
from gateway_amqp.publishing import Publishing
from gateway_amqp.settling import Settling
from gateway_amqp.transaction import Transaction
from gateway_amqp.unsettled import Unsettled
from tests.simulation.amqp_tenants import HIT
from tests.simulation.planted import assert_found
from tests.simulation.queues import OWN

pytestmark = [pytest.mark.slow, pytest.mark.interpreted]


# -- publishing


def test_a_confirm_when_a_message_comes(monkeypatch):
    honest = Publishing._submit

    def hasty(room, route, message, mandatory):
        honest(room, route, message, mandatory)
        if room._confirms is not None:
            room._send(room._confirms.all_stored(room._last))

    monkeypatch.setattr(Publishing, "_submit", hasty)
    assert_found("is confirmed, but neither on disk nor settled", amqp=True)


def test_a_refusal_that_is_told_as_a_confirm(monkeypatch):
    honest = Confirms.told
    monkeypatch.setattr(Confirms, "told", lambda confirms, through, _: honest(confirms, through, ()))
    assert_found("is confirmed, but neither on disk nor settled", amqp=True)


def test_a_confirm_that_says_one_too_many(monkeypatch):
    honest = Confirms.told

    def generous(confirms, through, refused):
        return honest(confirms, through + 1, refused)

    monkeypatch.setattr(Confirms, "told", generous)
    assert_found("is confirmed, but neither on disk nor settled", "which is not open", amqp=True)


def test_a_mandatory_message_that_does_not_come_back(monkeypatch):
    monkeypatch.setattr(Publishing, "_give_back", lambda *_: None)
    assert_found("was mandatory and went nowhere, but did not come back", amqp=True)


def test_a_copy_that_is_forgotten(monkeypatch):
    monkeypatch.setattr(publishing, "copy_keys", lambda *_: ())
    assert_found("comes back, but", "neither on disk nor settled", "was confirmed and lost", amqp=True)


def test_a_last_value_that_is_not_kept(monkeypatch):
    monkeypatch.setattr(publishing, "retain_of", lambda *_: False)
    assert_found("has lost its last value", "is not sent what is retained", amqp=True)


def test_a_last_value_that_is_confirmed_and_never_written(monkeypatch):
    honest = MemoryJournal._define

    def forgetful(journal, record):
        if not isinstance(record, Retained) or record.key.startswith("last.m"):
            honest(journal, record)

    monkeypatch.setattr(MemoryJournal, "_define", forgetful)
    assert_found("has lost its last value", "has the value", amqp=True)


def test_an_answer_that_is_for_somebody_else(monkeypatch):
    honest = DirectReply.address
    first = []

    def mixed(reply):
        address = honest(reply)
        first[:] = [each for each in first if reply.exists(each.decode())] or [address]
        return first[0]

    monkeypatch.setattr(DirectReply, "address", mixed)
    assert_found("which it did not ask on this channel", amqp=True)


def test_a_channel_that_is_closed_before_all_is_told(monkeypatch):
    monkeypatch.setattr(AmqpChannel, "_close", AmqpChannel._closed)
    assert_found("is confirmed, but neither on disk nor settled", "is closed, and was not told of", amqp=True)


def test_a_connection_that_is_closed_before_all_is_told(monkeypatch):
    monkeypatch.setattr(Protocol, "close", Protocol.closed)
    assert_found("is confirmed, but neither on disk nor settled", "is closed, and was not told of", amqp=True)


def test_a_channel_that_tells_confirms_before_it_is_closed_and_forgets_those_who_want_none(monkeypatch):
    honest = Publishing.is_waiting

    def of_confirms(room):
        return room._confirms is not None and honest.fget(room)

    monkeypatch.setattr(Publishing, "is_waiting", property(of_confirms))
    assert_found("is confirmed, but neither on disk nor settled", amqp=True)


# -- transactions


def test_a_transaction_whose_settlements_come_later(monkeypatch):
    honest = Transacting._settle_all

    def apart(engine, settlements):
        def settle(_):
            honest(engine, [one for one in settlements if one[0].consumer is not None and one[0] in one[0].consumer.held])

        engine.timers.at(engine.now_ms + 30, settle)

    monkeypatch.setattr(Transacting, "_settle_all", apart)
    assert_found("was settled by a transaction and is still there", "transactions", amqp=True)


def test_a_transaction_that_publishes_as_it_goes(monkeypatch):
    def at_once(transaction, route, message, mandatory, ttl_ms):
        transaction._amqp.channel.publish(route, message)

    monkeypatch.setattr(Transaction, "publish", at_once)
    assert_found("which was refused at once", "goes somewhere, or was not committed", "neither on disk nor settled", amqp=True)


def test_a_transaction_that_is_committed_when_its_channel_goes(monkeypatch):
    honest = Transaction.close

    def stubborn(transaction):
        publishes, _, settled = transaction._take()
        transaction._amqp._channel.transact(publishes, [(delivery, how) for _, delivery, how in settled])
        honest(transaction)

    monkeypatch.setattr(Transaction, "close", stubborn)
    assert_found("which was refused at once", "was not committed", amqp=True)


def test_a_transaction_that_leaves_out_what_is_refused(monkeypatch):
    def in_parts(engine, publishes, settlements):
        nowhere = []
        for index, (route, message) in enumerate(publishes):
            if engine._refusal_of_publishing([(route, message)]) is None and engine.publish(route, message) is not None:
                nowhere.append(index)
        engine._settle_all(settlements)
        engine.finish()
        return nowhere

    monkeypatch.setattr(Transacting, "transact", in_parts)
    assert_found("of a transaction of", "neither on disk nor settled", "is lost", amqp=True)


def test_a_rollback_that_forgets_what_was_acknowledged(monkeypatch):
    monkeypatch.setattr(Settling, "restore", lambda *_: None)
    assert_found("406 PRECONDITION_FAILED - unknown delivery tag", amqp=True)


# -- declaring


def test_an_answer_before_it_is_on_disk(monkeypatch):
    honest = AmqpChannel.expect

    def hasty(amqp, number, then, method):
        if method == names.TX_COMMIT or amqp.channel.refused(number) is not None:
            honest(amqp, number, then, method)
        else:
            then(Outcome(number, result=amqp.channel.result(number)))

    monkeypatch.setattr(AmqpChannel, "expect", hasty)
    assert_found("was declared, and is not there", "was deleted, and is there", "no queue 'own-", amqp=True)


def test_a_queue_that_is_back_with_what_was_deleted_with_it(monkeypatch):
    honest = MemoryJournal._define

    def forgetful(journal, record):
        if not isinstance(record, QueueDeleted) or not record.name.startswith(OWN):
            honest(journal, record)

    monkeypatch.setattr(MemoryJournal, "_define", forgetful)
    assert_found("was deleted, and is there", "was deleted with", amqp=True)


@pytest.mark.parametrize("forgotten", [Bound, Unbound])
def test_a_binding_that_is_answered_and_not_kept(monkeypatch, forgotten):
    honest = MemoryJournal._define

    def forgetful(journal, record):
        if not isinstance(record, forgotten) or record.binding.key != HIT:
            honest(journal, record)

    monkeypatch.setattr(MemoryJournal, "_define", forgetful)
    assert_found("was confirmed and lost", amqp=True)


def test_an_alternate_exchange_that_is_forgotten(monkeypatch):
    honest = declaring.exchange_spec

    def forgetful(*names, arguments, **other):
        return honest(*names, arguments={}, **other)

    monkeypatch.setattr(declaring, "exchange_spec", forgetful)
    assert_found("comes back, but", amqp=True)


def test_a_binding_that_brings_no_last_values(monkeypatch):
    monkeypatch.setattr(declaring, "_matched", lambda *_: {})
    assert_found("AMQP clients do not come to rest", amqp=True)


def test_an_exclusive_queue_that_stays(monkeypatch):
    def inclusive(name, *, exclusive, durable, **other):
        return queue_spec(name, durable=durable or exclusive, **other)

    monkeypatch.setattr(declaring, "queue_spec", inclusive)
    assert_found("was deleted, and is there", amqp=True)


# -- consuming


def test_a_prefetch_that_is_one_more(monkeypatch):
    honest = consuming.ConsumeOptions
    monkeypatch.setattr(
        consuming, "ConsumeOptions", lambda *, prefetch, **other: honest(prefetch=prefetch and prefetch + 1, **other)
    )
    assert_found("its prefetch is", amqp=True)


def test_a_channels_prefetch_that_is_one_more(monkeypatch):
    def generous(room):
        if room.limit and len(room.unsettled) + room.uncommitted - len(room.gotten) > room.limit:
            room._stop(FULL)
        elif room.stopped & FULL:
            room._go_on(FULL)

    monkeypatch.setattr(Consuming, "count", generous)
    assert_found("its prefetch is", amqp=True)


def test_consumers_that_do_not_go_on_when_there_is_room_again(monkeypatch):
    monkeypatch.setattr(Consuming, "room_again", lambda _: None)
    assert_found("AMQP clients do not come to rest", amqp=True)


def test_consumers_that_do_not_go_on_when_their_client_reads_again(monkeypatch):
    monkeypatch.setattr(Consuming, "decongested", lambda _: None)
    assert_found("AMQP clients do not come to rest", amqp=True)


def test_an_acknowledgement_of_many_that_takes_one_more(monkeypatch):
    honest = Unsettled.take_through

    def greedy(unsettled, tag):
        taken = honest(unsettled, tag)
        rest = unsettled.deliveries
        return taken + ([(first := min(rest), rest.pop(first))] if rest else [])

    monkeypatch.setattr(Unsettled, "take_through", greedy)
    assert_found("was confirmed and lost", "unknown delivery tag", "its prefetch is", amqp=True)


def test_a_channel_that_settles_what_it_holds_when_it_goes(monkeypatch):
    honest = AmqpChannel.end

    def careless(amqp):
        if amqp._consuming is not None and not amqp.is_over:
            for _, delivery in amqp._consuming.unsettled.take_all():
                amqp.channel.ack(delivery)
        honest(amqp)

    monkeypatch.setattr(AmqpChannel, "end", careless)
    assert_found("was confirmed and lost", "no transaction that settles it has happened", amqp=True)


def test_a_flag_that_is_lost(monkeypatch):
    class Plain:
        def __init__(self, delivery):
            self.message, self.redelivered, self.real = delivery.message, False, delivery

    honest = Consumption.deliver

    def forgetful(consumption, delivery):
        honest(consumption, Plain(delivery))
        deliveries = consumption._unsettled.deliveries
        for tag, one in deliveries.items():
            deliveries[tag] = getattr(one, "real", one)

    monkeypatch.setattr(Consumption, "deliver", forgetful)
    assert_found("twice without the redelivered flag", amqp=True)


def test_a_recover_that_gives_nothing_back(monkeypatch):
    def forgetful(room):
        room.unsettled.take_all()
        room.gotten.clear()
        room.settled(0)

    monkeypatch.setattr(Settling, "_recover", forgetful)
    assert_found("AMQP clients do not come to rest", amqp=True)


def test_content_frames_of_another_channel(monkeypatch):
    monkeypatch.setattr(consuming, "content_key", lambda _, frame_max: frame_max)
    monkeypatch.setattr("gateway_amqp.consumption.content_key", lambda _, frame_max: frame_max)
    assert_found(amqp=True)


# -- connections


def test_a_client_that_is_never_told_that_it_may_publish_again(monkeypatch):
    honest = Protocol.block

    def discreet(protocol):
        if protocol.broker.blocked or not protocol._told_blocked:
            honest(protocol)

    monkeypatch.setattr(Protocol, "block", discreet)
    assert_found("AMQP clients do not come to rest", amqp=True)
