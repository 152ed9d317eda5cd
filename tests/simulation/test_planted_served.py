"""Does the simulation find a fault of those who serve by ZeroMQ that somebody has planted?"""

from __future__ import annotations

import pytest

from gateway.api import ConsumeOptions
from gateway.runtime.channel import BrokerChannel
from gateway_zeromq.endpoints.dealer import DealerSocket
from gateway_zeromq.endpoints.feed import Feed
from gateway_zeromq.endpoints.rep import RepSocket
from gateway_zeromq.mdp import bridge
from gateway_zeromq.mdp.bridge import WorkerBridge
from gateway_zeromq.mdp.desk import Majordomo
from gateway_zeromq.mdp.protocol import Client, Worker
from gateway_zeromq.mdp.translate import Origin
from gateway_zeromq.tgp import protocol
from gateway_zeromq.tgp.commands import Batch
from gateway_zeromq.tgp.deliveries import Deliveries
from gateway_zeromq.tgp.protocol import Peer
from gateway_zeromq.tgp.publisher import Publisher
from tests.simulation.planted import assert_found

pytestmark = [pytest.mark.slow, pytest.mark.interpreted]


# -- Majordomo


def test_a_request_that_is_settled_when_a_worker_gets_it(monkeypatch):
    honest = WorkerBridge.deliver

    def hasty(worker, delivery):
        honest(worker, delivery)
        worker._settle(delivery)

    monkeypatch.setattr(WorkerBridge, "deliver", hasty)
    assert_found("was confirmed and lost: mdp.sum", "settled in mdp.sum", "and has", served=True)


def test_a_worker_that_takes_its_request_along_when_it_goes(monkeypatch):
    honest = WorkerBridge.ended

    def careless(worker):
        worker._held, held = None, worker._held
        if held is not None:
            worker._channel.ack(held)
        honest(worker)

    monkeypatch.setattr(WorkerBridge, "ended", careless)
    assert_found("was confirmed and lost: mdp.sum", "settled in mdp.sum", "and has", served=True)


def test_an_answer_that_is_not_passed_on(monkeypatch):
    honest = Majordomo.answer
    count = 0

    def forgetful(majordomo, origin, frames, *, final):
        nonlocal count
        count += 1
        if count % 5:
            honest(majordomo, origin, frames, final=final)

    monkeypatch.setattr(Majordomo, "answer", forgetful)
    assert_found("was not told of the answers", "not everything is answered", served=True)


def test_an_answer_for_somebody_who_had_the_same_name_in_another_life(monkeypatch):
    monkeypatch.setattr(Origin, "is_named", property(lambda origin: True))
    assert_found("which it did not ask", served=True)


def test_a_worker_that_is_asked_two_things_at_a_time(monkeypatch):
    monkeypatch.setattr(bridge, "ONE", ConsumeOptions(prefetch=2))
    assert_found("and has", served=True)


def test_a_worker_that_is_taken_for_dead_too_soon(monkeypatch):
    honest = Worker.tick

    def impatient(worker, now):
        return honest(worker, now if worker.address is None else now + 1.7)

    monkeypatch.setattr(Worker, "tick", impatient)
    assert_found("of mdp.sum, which v", served=True)


def test_an_answer_that_is_said_twice(monkeypatch):
    honest = Client.answer

    def talkative(client, service, body, *, final):
        honest(client, service, body, final=final)
        honest(client, service, body, final=final)

    monkeypatch.setattr(Client, "answer", talkative)
    assert_found("is told more than once", served=True)


# -- DEALER and REP


def test_a_request_that_is_settled_when_it_goes_out(monkeypatch):
    honest = DealerSocket._ask

    def hasty(dealer, item):
        honest(dealer, item)
        dealer._feed.settle(item, dealer._feed.channel.ack)

    monkeypatch.setattr(DealerSocket, "_ask", hasty)
    assert_found("was confirmed and lost: asked", served=True)


def move_apart(monkeypatch, first, then):
    """Let a request and its reply be settled in different commits."""

    def apart(channel, delivery, route, message):
        first(channel, delivery, route, message)
        engine = channel._engine

        def end(_):
            if delivery in channel._held or then is BrokerChannel.publish:
                then(channel, delivery, route, message)

        engine.timers.at(engine.now_ms + 100, end)

    monkeypatch.setattr(BrokerChannel, "move", apart)


def settle(channel, delivery, route, message):
    channel.ack(delivery)


def publish(channel, delivery, route, message):
    channel.post(route, message)


def test_a_reply_that_is_published_before_its_request_is_settled(monkeypatch):
    move_apart(monkeypatch, publish, settle)
    assert_found("which was answered", "answers", "twice", served=True)


def test_a_reply_that_is_published_after_its_request_was_settled(monkeypatch):
    move_apart(monkeypatch, settle, publish)
    assert_found("was confirmed and lost", served=True)


def test_a_dead_worker_that_keeps_its_request(monkeypatch):
    monkeypatch.setattr(Feed, "give_back", lambda feed, items, reason: None)
    assert_found("not everything is answered", served=True)


def test_a_reply_that_is_not_waited_for_long_enough(monkeypatch):
    honest = DealerSocket.__init__

    def impatient(dealer, spot, settings, principal):
        honest(dealer, spot, settings, principal)
        dealer._timeout_s /= 3

    monkeypatch.setattr(DealerSocket, "__init__", impatient)
    assert_found("of asked, which rep", served=True)


def test_a_caller_that_nobody_tells_that_no_reply_comes(monkeypatch):
    monkeypatch.setattr(RepSocket, "_fail", lambda rep, name, code, text: None)
    assert_found("waits for an answer", served=True)


def test_a_caller_that_gets_the_reply_of_another(monkeypatch):
    honest = RepSocket._reply

    def mixed(rep, message):
        names = list(rep._questions)
        if len(names) > 1:
            rep._questions[names[0]], rep._questions[names[1]] = rep._questions[names[1]], rep._questions[names[0]]
        honest(rep, message)

    monkeypatch.setattr(RepSocket, "_reply", mixed)
    assert_found("and is told", served=True)


# -- TGP/1


def test_a_batch_that_is_confirmed_before_the_commit(monkeypatch):
    honest = Peer.on_batch

    def early(peer, command, body):
        honest(peer, command, body)
        peer.confirm(command.seq + len(command.messages) - 1, 0, multiple=True)

    monkeypatch.setitem(protocol._ACTIONS, Batch, early)
    assert_found("is confirmed, but neither on disk", served=True)


def test_a_batch_of_which_a_part_is_taken_for_another(monkeypatch):
    honest = Publisher.publish
    last = {}

    def shifted(publisher, command, body, *, refusing):
        body, last[publisher] = last.get(publisher) or body, body
        honest(publisher, command, body, refusing=refusing)

    monkeypatch.setattr(Publisher, "publish", shifted)
    assert_found("t0 ", "t1 ", served=True)


def test_a_limit_of_bytes_that_is_not_kept(monkeypatch):
    monkeypatch.setattr(Deliveries, "_has_room", lambda deliveries, delivery: True)
    assert_found("bytes, it takes", served=True)


def test_what_a_client_schedules_and_what_comes_too_soon(monkeypatch):
    honest = Publisher._schedule

    def hasty(publisher, command, route, message):
        command.due_ms -= 30
        honest(publisher, command, route, message)

    monkeypatch.setattr(Publisher, "_schedule", hasty)
    assert_found("was not due before", served=True)
