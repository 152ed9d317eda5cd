"""Does the simulation find a fault that somebody has planted?"""

from __future__ import annotations

import pytest

from gateway.engine.dedup import Window
from gateway.engine.definitions.definitions import Definitions
from gateway.engine.engine import Engine
from gateway.engine.queues import lease
from gateway.engine.queues.aging import Idleness
from gateway.engine.queues.burial import Burial
from gateway.engine.queues.holding import Holding
from gateway.engine.queues.lane import Lane
from gateway.engine.queues.line import SingleActive
from gateway.engine.queues.queue import Queue
from gateway.engine.retained import LastValues
from gateway.engine.schedule.schedule import Schedule
from gateway.journal import compaction
from gateway.runtime.channel import BrokerChannel
from gateway.runtime.committer import Committer
from gateway_zeromq.tgp.publisher import Publisher
from gateway_zeromq.tgp.session import Session
from tests.simulation.planted import assert_found

pytestmark = [pytest.mark.slow, pytest.mark.interpreted]


def test_a_confirm_before_the_commit(monkeypatch):
    honest = Committer._write

    def early(committer, commit):
        committer._release()
        honest(committer, commit)

    monkeypatch.setattr(Committer, "_write", early)
    assert_found("is confirmed, but neither on disk nor settled")


def test_a_message_that_is_never_written_because_it_was_handed_over(monkeypatch):
    monkeypatch.setattr(Engine, "settle_automatically", Engine.settle)
    assert_found("is confirmed, but neither on disk nor settled in pushed")


def test_a_requeue_that_loses_the_redelivered_flag(monkeypatch):
    honest = Queue.requeue

    def forgetful(queue, entry, *rest):
        honest(queue, entry, *rest)
        entry.redelivered = False

    monkeypatch.setattr(Queue, "requeue", forgetful)
    assert_found("twice without the redelivered flag")


def test_a_purge_that_leaves_a_count_wrong(monkeypatch):
    honest = Definitions.purge_queue

    def wrong(definitions, vhost, name, owner):
        removed = honest(definitions, vhost, name, owner)
        definitions.engine.vhost(vhost).queues[name].count += bool(removed)
        return removed

    monkeypatch.setattr(Definitions, "purge_queue", wrong)
    assert_found("count is", having="purged")


def test_a_requeue_to_the_end_of_the_queue(monkeypatch):
    def to_the_end(lane, entry):
        lane.append(entry)

    monkeypatch.setattr(Lane, "put_back", to_the_end)
    assert_found("order")


def test_a_credit_that_is_not_counted(monkeypatch):
    honest = Queue._hand

    def generous(queue, entry):
        consumer = queue.able[0]
        honest(queue, entry)
        if not consumer.no_ack and consumer.credit_left > 0:
            consumer.credit_left += 1

    monkeypatch.setattr(Queue, "_hand", generous)
    assert_found("its prefetch is", "in flight", "credit is")


def test_a_limit_in_bytes_that_counts_wrong(monkeypatch):
    honest = Holding.gone

    def light(holding, entry):
        honest(holding, entry)
        holding.body_bytes += 1

    monkeypatch.setattr(Holding, "gone", light)
    assert_found("body_bytes is")


def test_dead_letters_that_are_dropped(monkeypatch):
    honest = Engine.died

    def lost(engine, entry, reason):
        dead = len(engine.dead)
        honest(engine, entry, reason)
        if len(engine.dead) > dead:
            engine.discard(engine.dead.pop().entry)

    monkeypatch.setattr(Engine, "died", lost)
    assert_found("was confirmed and lost")


def test_a_withdrawal_that_forgets_some(monkeypatch):
    monkeypatch.setattr(Engine, "withdraw", lambda engine, is_written: [])
    assert_found("which was refused and had not been delivered")


def test_a_puback_for_what_was_refused(monkeypatch):
    """MQTT has no other way to say no than to close."""
    from gateway_mqtt.inbound import Inbound

    monkeypatch.setattr(Inbound, "_refuse", lambda inbound, number, error: None)
    assert_found("is confirmed, but neither on disk", "does not come to rest", having="m0")


def test_a_redelivery_without_dup(monkeypatch):
    from gateway_mqtt.outbound import sending

    monkeypatch.setattr(sending, "DUP", 0)
    assert_found("twice without the redelivered flag", having="m0")


def test_a_mark_that_claims_what_was_refused(monkeypatch):
    monkeypatch.setattr(Session, "refuse", lambda session, seq, code: session.note(seq))
    assert_found("is confirmed, but neither on disk")


def test_a_session_that_takes_a_number_twice(monkeypatch):
    honest = Publisher.publish

    def forgetful(publisher, command, body, *, refusing):
        publisher.session.mark = 0
        honest(publisher, command, body, refusing=refusing)

    monkeypatch.setattr(Publisher, "publish", forgetful)
    assert_found("twice", "again after")


@pytest.mark.parametrize("method", ["handed_over", "committed"])
def test_a_backlog_that_loses_count(monkeypatch, method):
    from gateway.engine.queues.backlog import Backlog

    honest = getattr(Backlog, method)

    def careless(backlog):
        honest(backlog)
        if method == "committed" and backlog.on_disk:
            backlog.on_disk -= 1
        elif backlog.writing:
            backlog.writing.pop()

    monkeypatch.setattr(Backlog, method, careless)
    assert_found()


def test_an_id_that_is_forgotten_when_the_power_goes(monkeypatch):
    honest = Window._remember

    def forgetful(window, key, until_ms, *, lasting):
        honest(window, key, until_ms, lasting=False)

    monkeypatch.setattr(Window, "_remember", forgetful)
    assert_found("unique", having="unique")


def test_a_repetition_that_is_let_through(monkeypatch):
    monkeypatch.setattr(Window, "_remember", lambda window, key, until_ms, *, lasting: None)
    assert_found("unique", having="unique")


def bury_apart(monkeypatch, first, then):
    """Let the two halves of a dead letter be in different commits."""
    honest = Burial._bury

    def apart(burial, dead):
        engine = burial._engine
        if dead.entry is None or dead.entry.settled or engine.refusal is not None:
            honest(burial, dead)
            return
        first(burial, dead)
        burial.limbo.append(dead)

        def end(_):
            if dead in burial.limbo:
                burial.limbo.remove(dead)
                then(burial, dead)

        engine.timers.at(engine.now_ms + 300, end)

    monkeypatch.setattr(Burial, "_bury", apart)


def test_a_dead_letter_whose_source_is_settled_in_a_later_commit(monkeypatch):
    bury_apart(monkeypatch, lambda burial, dead: burial._publish(dead), lambda burial, dead: burial._engine.discard(dead.entry))
    assert_found("which was dead-lettered", "again after")


def test_a_dead_letter_whose_source_was_settled_in_an_earlier_commit(monkeypatch):
    bury_apart(monkeypatch, lambda burial, dead: burial._engine.discard(dead.entry), lambda burial, dead: burial._publish(dead))
    assert_found("was confirmed and lost")


def test_a_confirm_for_what_was_withdrawn(monkeypatch):
    def kind(channel, through, exceptions, error):
        channel.decided(through, exceptions)
        return 0

    monkeypatch.setattr(BrokerChannel, "refuse", kind)
    assert_found("is confirmed, but neither on disk nor settled", "was confirmed and lost")


def test_a_lease_that_leaves_two_holders(monkeypatch):
    honest = lease._successor

    def careless(queue, entry):
        fresh = honest(queue, entry)
        entry.settled = False
        return fresh

    monkeypatch.setattr(lease, "_successor", careless)
    assert_found("leased: position", "leased: count is", having="leased")


def test_a_single_active_consumer_that_is_not_the_only_one(monkeypatch):
    def enter(line, consumer):
        consumer.in_turn = True
        line._queue.able.append(consumer)

    monkeypatch.setattr(SingleActive, "enter", enter)
    assert_found("single", having="single")


def test_a_delivery_limit_that_counts_from_one(monkeypatch):
    honest = Engine.come_back

    def lenient(engine, entry, delay_ms=0):
        entry.count -= 1
        honest(engine, entry, delay_ms)
        entry.count += 1

    monkeypatch.setattr(Engine, "come_back", lenient)
    assert_found("poison", having="poison", first=400)


def test_a_last_value_that_outlives_its_exchange(monkeypatch):
    monkeypatch.setattr(LastValues, "leave", lambda values, vhost, exchange: None)
    assert_found("has the last value", having="k")


def test_a_delay_that_is_cut_short(monkeypatch):
    honest = Schedule.place

    def hasty(schedule, route, message, due_ms):
        return honest(schedule, route, message, due_ms - 30)

    monkeypatch.setattr(Schedule, "place", hasty)
    assert_found("was not due before", having="delayed")


def test_a_queue_that_expires_though_it_is_used(monkeypatch):
    monkeypatch.setattr(Idleness, "_due", lambda idleness, now_ms: idleness._queue.engine.definitions.remove_queue(idleness._queue))
    assert_found("fleeting", having="lodger")


def test_a_window_that_takes_every_page(monkeypatch):
    honest = Lane.page_loaded

    def greedy(lane, page, after_position):
        honest(lane, page, after_position)
        backlog = lane.backlog
        if backlog is not None and backlog.on_disk and not backlog.requested:
            backlog.requested = True
            lane.queue.engine.events.page_wanted(lane.id, backlog.window_end, 1 << 20)

    monkeypatch.setattr(Lane, "page_loaded", greedy)
    assert_found("bytes that are on disk are in memory", bodies=True)


def test_a_compaction_that_swaps_two_messages(monkeypatch, tmp_path):
    honest = compaction._make

    def mixed(stored, slots, handle, moves, messages, stored_ms):
        before = len(messages)
        honest(stored, slots, handle, moves, messages, stored_ms)
        if len(messages) - before > 1:
            messages[-1].body, messages[-2].body = messages[-2].body, messages[-1].body

    monkeypatch.setattr(compaction, "_make", mixed)
    assert_found(directory=tmp_path)
