"""What does a whole broker do when its disk is slow or its clock wrong? A test per case, named after it."""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest
import zmq

from tests.journal.whole_broker import PATIENCE_S, STORED, Broker, Client, clients, with_a_queue

pytestmark = pytest.mark.slow


class Pinger:
    """A peer that asks for nothing but an answer."""

    def __init__(self, broker: Broker) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{broker.port}")
        self._ask({"cmd": "HELLO", "r": 1, "version_max": 1})
        self.close = self._socket.close

    def _ask(self, header: dict) -> dict:
        self._socket.send(json.dumps(header).encode())
        return json.loads(self._socket.recv_multipart()[0])

    def ping(self) -> float:
        """Return how long the answer took, in seconds."""
        asked = time.monotonic()
        assert self._ask({"cmd": "PING", "token": 1})["cmd"] == "PONG"
        return time.monotonic() - asked


def test_slow_disk_confirms_wait_and_the_loop_does_not(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer, closing(Pinger(broker)) as pinger:
        broker.rule("S * delay:600 0 -1")
        times = []
        for number in range(5):
            began = time.monotonic()
            writer.send(f"{number}")
            writer.tgp.poll()
            while time.monotonic() - began < 0.5:  # while the sync is under way
                times.append(pinger.ping())
            assert writer.outcome() == STORED
            assert time.monotonic() - began >= 0.59
        assert len(times) >= 20  # one for each sync, and as long as it, if the loop waited
        assert sorted(times)[len(times) // 2] < 0.3


HOUR_MS = 3_600_000


def times_left(client: Client) -> list[int]:
    return [delivery.properties["expiration_ms"] for delivery in client.deliveries if "expiration_ms" in delivery.properties]


def test_clock_set_back_nothing_expires_early_or_has_a_negative_time_left(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("before", expiration_ms=1_000_000) == STORED
        broker.rule(f"C 0 {-HOUR_MS} 0 0")
        assert writer.publish("after", expiration_ms=1_000_000) == STORED
    broker.restart(f"C 0 {-HOUR_MS} 0 0")
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new", expiration_ms=1_000_000) == STORED
        assert reader.receive(3) == ["before", "after", "new"]
        assert all(left > 0 for left in times_left(reader))


def test_clock_set_forward_what_has_expired_by_it_is_not_delivered_and_the_rest_is(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("short", expiration_ms=1_000_000) == STORED
        assert writer.publish("long", expiration_ms=100_000_000) == STORED
        assert writer.publish("for ever") == STORED
    broker.rule(f"C 0 {HOUR_MS} 0 0")
    broker.says("clock was set")
    with clients(broker, "reader") as reader:
        assert reader.receive(2) == ["long", "for ever"]
        reader.nothing_more()
        assert all(0 < left <= 100_000_000 for left in times_left(reader))
    broker.rule()  # and back again: time stands still until it is caught up
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new", expiration_ms=1_000_000) == STORED
        assert reader.receive(1) == ["new"]
