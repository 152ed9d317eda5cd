"""Does the simulation find a fault that somebody has planted?"""

from __future__ import annotations

import pytest

from gateway.engine.definitions import Definitions
from gateway.engine.engine import Engine
from gateway.engine.holding import Holding
from gateway.engine.lane import Lane
from gateway.engine.queue import Queue
from gateway.runtime.committer import Committer
from gateway_mqtt.outbound import Outbound
from gateway_zeromq.publisher import Publisher
from gateway_zeromq.session import Session
from tests.simulation.ledger import Wrong
from tests.simulation.seeds import play


def found_within(seeds, first=0):
    """Return what the first world says that goes wrong."""
    for seed in range(first, first + seeds):
        try:
            play(seed)
        except Wrong as error:
            return str(error)
    return ""


def test_a_confirm_before_the_commit(monkeypatch):
    honest = Committer._write

    def early(committer, commit):
        committer._release()
        honest(committer, commit)

    monkeypatch.setattr(Committer, "_write", early)
    assert "is confirmed, but neither on disk nor settled" in found_within(5)


def test_a_message_that_is_never_written_because_it_was_handed_over(monkeypatch):
    monkeypatch.setattr(Engine, "settle_automatically", Engine.settle)
    assert "is confirmed, but neither on disk nor settled in pushed" in found_within(30)


def test_a_requeue_that_loses_the_redelivered_flag(monkeypatch):
    honest = Queue.requeue

    def forgetful(queue, entry, *rest):
        honest(queue, entry, *rest)
        entry.redelivered = False

    monkeypatch.setattr(Queue, "requeue", forgetful)
    assert "twice without the redelivered flag" in found_within(10)


def test_a_purge_that_leaves_a_count_wrong(monkeypatch):
    honest = Definitions.purge_queue

    def wrong(definitions, vhost, name, owner):
        removed = honest(definitions, vhost, name, owner)
        definitions.engine.vhost(vhost).queues[name].count += bool(removed)
        return removed

    monkeypatch.setattr(Definitions, "purge_queue", wrong)
    assert "count is" in found_within(60)


def test_a_requeue_to_the_end_of_the_queue(monkeypatch):
    def to_the_end(lane, entry):
        lane.append(entry)

    monkeypatch.setattr(Lane, "put_back", to_the_end)
    assert "order" in found_within(10)


def test_a_credit_that_is_not_counted(monkeypatch):
    honest = Queue._hand

    def generous(queue, entry):
        consumer = queue.able[0]
        honest(queue, entry)
        if not consumer.no_ack and consumer.credit_left > 0:
            consumer.credit_left += 1

    monkeypatch.setattr(Queue, "_hand", generous)
    assert any(word in found_within(10) for word in ("its prefetch is", "in flight", "credit is"))


def test_a_limit_in_bytes_that_counts_wrong(monkeypatch):
    honest = Holding.gone

    def light(holding, entry):
        honest(holding, entry)
        holding.body_bytes += 1

    monkeypatch.setattr(Holding, "gone", light)
    assert "body_bytes is" in found_within(10)


def test_dead_letters_that_are_dropped(monkeypatch):
    honest = Engine.died

    def lost(engine, entry, reason):
        dead = len(engine.dead)
        honest(engine, entry, reason)
        if len(engine.dead) > dead:
            engine.discard(engine.dead.pop().entry)

    monkeypatch.setattr(Engine, "died", lost)
    assert "was confirmed and lost" in found_within(20)


def test_a_withdrawal_that_forgets_some(monkeypatch):
    monkeypatch.setattr(Engine, "withdraw", lambda engine, is_written: 0)
    assert "which was refused and had not been delivered" in found_within(80)


def test_a_puback_for_what_was_refused(monkeypatch):
    """MQTT has no other way to say no than to close."""
    from gateway_mqtt.inbound import Inbound

    monkeypatch.setattr(Inbound, "_refuse", lambda inbound, number, error: None)
    assert "is confirmed, but neither on disk" in found_within(40)


def test_a_redelivery_without_dup(monkeypatch):
    honest = Outbound._deliver_odd

    def plain(outbound, delivery, front):
        if not front:
            honest(outbound, delivery, front)
            return
        from gateway_mqtt.outbound import IDENTIFIERS

        packet_id = outbound._session.identify_again(delivery)
        outbound._append((front, IDENTIFIERS[packet_id], delivery.message.body))

    monkeypatch.setattr(Outbound, "_deliver_odd", plain)
    assert "twice without the redelivered flag" in found_within(40)


def test_a_mark_that_claims_what_was_refused(monkeypatch):
    monkeypatch.setattr(Session, "refuse", lambda session, seq, code: session.note(seq))
    assert "is confirmed, but neither on disk" in found_within(60)


def test_a_session_that_takes_a_number_twice(monkeypatch):
    honest = Publisher.publish

    def forgetful(publisher, command, body, *, refusing):
        publisher.session.mark = 0
        honest(publisher, command, body, refusing=refusing)

    monkeypatch.setattr(Publisher, "publish", forgetful)
    assert "twice" in found_within(60)


@pytest.mark.parametrize("method", ["handed_over", "committed"])
def test_a_backlog_that_loses_count(monkeypatch, method):
    from gateway.engine.backlog import Backlog

    honest = getattr(Backlog, method)

    def careless(backlog):
        honest(backlog)
        if method == "committed" and backlog.on_disk:
            backlog.on_disk -= 1
        elif backlog.writing:
            backlog.writing.pop()

    monkeypatch.setattr(Backlog, method, careless)
    assert found_within(40)
