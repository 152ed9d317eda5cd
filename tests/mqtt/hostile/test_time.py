"""What asks for much with few bytes: others have their turns."""

from __future__ import annotations

import os
import time

from gateway.runtime.streams.pace import FASTEST, FIRST_PACE, SIZES, next_pace
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import PINGREQ, PINGRESP, Signal
from gateway_mqtt.session import Session
from gateway_mqtt.store import Kept
from tests.mqtt.support import mqtt_broker


def test_a_peer_whose_packets_take_long_is_read_from_in_small_pieces_until_they_do_not():
    pace = FIRST_PACE
    for _ in range(5):
        pace = next_pace(pace, 0.1, full=True)
    assert SIZES[pace] == 64
    for _ in range(20):
        pace = next_pace(pace, 0.001, full=True)
    assert pace == FASTEST
    assert SIZES[pace] == 65_536


def test_it_is_not_read_faster_as_long_as_little_comes_or_it_takes_its_time():
    assert next_pace(FIRST_PACE, 0.001, full=False) == FIRST_PACE
    assert next_pace(3, 0.01, full=True) == 3


def test_who_asks_for_little_again_is_no_longer_put_off():
    pace = next_pace(FIRST_PACE, 1.0, full=True)
    assert pace < FIRST_PACE
    for _ in range(10):
        pace = next_pace(pace, 0.001, full=False)
    assert pace == FIRST_PACE


class Sent:
    def __init__(self, position: int) -> None:
        self.position = position


def test_an_answer_to_nothing_costs_the_same_however_much_is_to_be_resent():
    session = Session("/", "p", clean=False)
    kept = Kept()
    kept.runs = ((1, 1, 30_000),)
    session.resume(kept, exact=True)
    began = time.process_time()
    assert not any(session.is_to_be_resent(60_000) for _ in range(50_000))
    assert time.process_time() - began < 5  # half a minute, were all of them looked at
    assert session.is_to_be_resent(7)
    session.identify_again(Sent(7))
    assert not session.is_to_be_resent(7)
    session.release_reserved()
    assert not session.is_to_be_resent(8)


async def test_many_who_ask_for_much_do_not_come_before_one_who_asks_for_little():
    async with mqtt_broker() as bench:
        beside = await bench.client("beside")
        greedy = [await bench.client(f"greedy{n}") for n in range(20)]
        connections = bench.broker.listeners[0].connections
        for connection in connections:
            connection.pace = 0
        port = beside.stream.socket.getsockname()[1]
        (own,) = (connection for connection in connections if connection.peer.endswith(f":{port}"))
        own.pace = FIRST_PACE
        order = []
        for connection in connections - {own}:
            connection._receiver = Noted(connection._receiver, order)
        own._receiver = Noted(own._receiver, order, "beside")
        for peer in [*greedy, beside]:  # in one turn
            os.write(peer.stream.socket.fileno(), encode(Signal(PINGREQ)))
        assert await beside.next() == Signal(PINGRESP)
        for peer in greedy:
            assert await peer.next() == Signal(PINGRESP)
        assert order.index("beside") < 3
        assert len(order) == 21


class Noted:
    """Notes who is fed."""

    def __init__(self, receiver, order, name="") -> None:
        self._receiver = receiver
        self._order = order
        self._name = name

    def feed(self, data):
        self._order.append(self._name)
        return self._receiver.feed(data)

    def ended(self, reason):
        self._receiver.ended(reason)
