"""What if a client, or chance, chooses the worst moment?"""

from __future__ import annotations

from gateway.api import Address, Message, NotFound
from gateway_mqtt.codec.packets import MAX_IDENTIFIER
from gateway_mqtt.outbound import Outbound
from gateway_mqtt.session import Session
from gateway_mqtt.store import Kept, runs_of
from gateway_mqtt.translate.messages import Encoder


class Sent:
    def __init__(self, position):
        self.position = position


def test_identifiers_of_what_vanished_while_its_client_was_away_do_not_run_out():
    session = Session("/", "p", clean=False)
    position = 0
    for _ in range(80):  # each time what was in flight has expired when the client is back
        for _ in range(1_000):
            position += 1
            assert len(session.inflight) < MAX_IDENTIFIER, "the search for a free identifier would never end"
            last = session.identify(Sent(position))
        kept = Kept()
        kept.runs = runs_of(session.in_flight())
        session = Session("/", "p", clean=False)
        session.resume(kept, exact=True)
    assert len(session.inflight) <= MAX_IDENTIFIER // 2
    assert session.identify_again(Sent(position)) == last, "what was sent last is remembered"


class Unfit:
    """A delivery whose routing key is no topic."""

    redelivered = False
    options = None
    position = 1

    def __init__(self):
        self.message = Message(Address("/", "amq.topic", "a#b"), b"", True)
        self.options = None


class Queue:
    """A channel whose queue hands the next message over as soon as one is given back, and a gateway and a connection to it."""

    closing = is_congested = False

    def __init__(self, messages):
        self.left = messages
        self.given_back = 0
        self.touched = 0
        self.out = []
        self.gone = False

    def touch(self, *_):
        self.touched += 1

    def flush(self):
        pass

    def count(self, *_, **__):
        pass

    def ack(self, delivery):
        pass

    def nack(self, delivery, *, requeue):
        if self.gone:
            raise NotFound("unknown delivery tag")
        self.given_back += 1
        if self.left:
            self.left -= 1
            self.outbound.deliver(Unfit())


def unfit(messages, held):
    queue = Queue(messages)
    outbound = queue.outbound = Outbound(queue, queue, Encoder(), Session("/", "p", clean=False), 10)
    outbound.attach(queue)
    for _ in range(held):
        outbound.deliver(Unfit())
    return queue, outbound


def test_a_queue_full_of_what_mqtt_can_not_carry_is_gone_through_a_window_at_a_time():
    queue, outbound = unfit(1_000, 10)
    outbound.flush()
    assert queue.given_back == 10
    assert queue.touched == 2, "what came meanwhile has its turn, once for all of it"
    outbound.flush()
    assert queue.given_back == 20


def test_what_mqtt_can_not_carry_may_be_gone_before_it_is_given_back():
    queue, outbound = unfit(0, 2)
    queue.gone = True
    outbound.flush()
    outbound.flush()
    assert queue.given_back == 0
