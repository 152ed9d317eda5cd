"""A message that is small as it comes, and large as it goes: how much is written in one turn?"""

from __future__ import annotations

import pytest

from gateway_mqtt.outbound import peer
from tests.mqtt.receiver import Connection, Receiver, receiving, settle

IDENTIFIERS = tuple(range(1, 4_097))
PACKET_BYTES = 13_000
MESSAGES = 1_000
PATIENCE_BYTES = 4 * 1024 * 1024


class Deaf(Connection):
    """Nobody reads: it is congested as soon as so much was written."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.flushed: list[int] = []

    def flush(self) -> None:
        self.flushed.append(sum(map(len, self.out)))
        self.out.clear()
        if sum(self.flushed) > PATIENCE_BYTES and not self.is_congested:
            self.congest(True)


def deaf(bench, monkeypatch, **fields) -> Receiver:
    monkeypatch.setattr("tests.mqtt.receiver.Connection", Deaf)
    receiver = Receiver(bench, lasts=False, level=5, **fields)
    receiver.connection.watch(receiver.out)
    return receiver


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_a_turn_writes_to_one_client_is_bounded_however_many_identifiers_each_message_has(monkeypatch, qos):
    async with receiving() as bench:
        receiver = deaf(bench, monkeypatch, max_inflight=MESSAGES)
        receiver.bind("t", qos, subscription_ids=IDENTIFIERS)
        await settle()
        for _ in range(MESSAGES):
            bench.publish("t", b"x", qos=qos)
        receiver.out.flush()
        connection = receiver.connection
        assert max(connection.flushed) <= peer.MOST_UNSENT_BYTES + PACKET_BYTES
        assert sum(connection.flushed) <= PATIENCE_BYTES + 2 * peer.MOST_UNSENT_BYTES
        receiver.out.count()
        sent = receiver.told.publishes
        assert sum(connection.flushed) // PACKET_BYTES <= sent < MESSAGES / 2
        connection.flushed.clear()
        connection.congest(False)
        receiver.out.flush()
        receiver.out.count()
        waited = receiver.told.publishes - sent
        dropped = bench.counted("mqtt.dropped")
        assert waited > sent / 2 if qos else not waited
        assert dropped == (0 if qos else MESSAGES - sent)


async def test_little_is_written_once_a_turn(monkeypatch):
    async with receiving() as bench:
        receiver = deaf(bench, monkeypatch)
        receiver.bind("t", 0, subscription_ids=(1, 2))
        await settle()
        receiver.connection.flushed.clear()
        for _ in range(MESSAGES):
            bench.publish("t", b"x", qos=0)
        receiver.out.flush()
        receiver.out.count()
        assert len(receiver.connection.flushed) == 1
        assert receiver.told.publishes == MESSAGES
