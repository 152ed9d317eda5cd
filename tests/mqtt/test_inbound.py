"""Outcomes become PUBACKs: which, when, and in which order, whatever the batches are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Address, CloseReason, MessageRefused, Outcome, Principal
from gateway_mqtt.inbound import Inbound
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.topics import Routes, TopicLimits


class FakeRoute:
    address = Address("/", "amq.topic", "t")


class FakeChannel:
    """Numbers publishes and everything else in one row, from 1."""

    def __init__(self):
        self.number = 0

    def route(self, exchange, routing_key):
        return FakeRoute()

    def publish(self, route, message):
        self.number += 1
        return self.number

    declare = barrier = lambda self: self.publish(None, None)

    def post(self, route, message):
        pass

    def post_run(self, route, run):
        return True


class FakeConnection:
    peer = "peer"

    def __init__(self):
        self.closed = []

    def close(self, reason):
        self.closed.append(reason)


class FakeGateway:
    def __init__(self):
        self.log = self
        self.counted = []
        self.logged = []

    def count(self, name, amount=1, *, reason=""):
        self.counted.append((name, reason))

    def warning(self, event, **values):
        self.logged.append(event)


class Bench:
    def __init__(self):
        self.gateway, self.connection, self.channel = FakeGateway(), FakeConnection(), FakeChannel()
        self.replies = []
        self.told = []
        self.inbound = Inbound(self.gateway, self.connection, Encoder(), "c", lambda data, packets=1: self.replies.append(data))
        self.inbound.attach(self.channel, Routes(self.channel, Principal("x"), TopicLimits(9, 99)))
        self.declare()

    def declare(self):
        number = self.channel.declare()
        self.inbound.expect(number, lambda outcome: self.told.append(outcome.number))
        return number

    def publish(self, packet_id):
        self.inbound.publish_confirmed(b"t", b"", packet_id.to_bytes(2, "big"), b"")

    def acknowledged(self):
        data = b"".join(self.replies)
        assert data[0::4] == b"\x40" * (len(data) // 4)
        assert data[1::4] == b"\x02" * (len(data) // 4)
        return [int.from_bytes(data[at : at + 2], "big") for at in range(2, len(data), 4)]


@given(st.lists(st.sampled_from(["publish", "declare", "outcomes"]), max_size=40))
def test_every_publish_is_acknowledged_once_in_order_with_the_batch_that_decides_it(steps):
    bench = Bench()
    published, declared, decided = [], [1], 0
    for step in [*steps, "outcomes"]:
        match step:
            case "publish":
                published.append(len(published) + 1)
                bench.publish(published[-1])
            case "declare":
                declared.append(bench.declare())
            case "outcomes":
                through = bench.channel.number
                bench.inbound.on_outcomes(through, [Outcome(number) for number in declared if decided < number])
                decided = through
                assert bench.acknowledged() == published
                assert bench.told == declared


@given(st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_after_a_refusal_nothing_is_acknowledged_any_more_whatever_comes(before, behind, declaring):
    bench = Bench()
    for packet_id in range(1, before + behind + 1):
        bench.publish(packet_id)
    refused = 1 + before
    exceptions = [Outcome(1), Outcome(refused, error=MessageRefused("full"))]
    bench.inbound.on_outcomes(refused + behind, exceptions)
    assert bench.acknowledged() == list(range(1, before))
    bench.publish(99)
    last = bench.declare() if declaring else bench.channel.number
    bench.inbound.on_outcomes(last, [])
    assert bench.acknowledged() == list(range(1, before))
    assert bench.connection.closed == [CloseReason.LOCAL]
    assert bench.gateway.counted == [("publishes_refused", "MessageRefused")]
    assert len(bench.gateway.logged) == 1


def test_what_reached_no_queue_is_acknowledged_like_the_rest():
    bench = Bench()
    for packet_id in (1, 2, 3):
        bench.publish(packet_id)
    bench.inbound.on_outcomes(4, [Outcome(1), Outcome(3, unroutable=True)])
    assert bench.acknowledged() == [1, 2, 3]
