"""Heartbeats: who is due when?"""

from __future__ import annotations

import math

from gateway_amqp.beats import Beats


class Peer:
    def __init__(self, heartbeat_s: int = 60) -> None:
        self.heartbeat_s = heartbeat_s

    def beat(self) -> None:
        pass


def test_nothing_is_due_where_nobody_is():
    beats = Beats()
    assert beats.due_at == math.inf
    assert beats.due(1e9) == []


def test_each_is_due_twice_in_its_own_interval():
    beats, slow, quick = Beats(), Peer(60), Peer(4)
    assert beats.join(slow, 60, 100.0)
    assert beats.due_at == 130.0
    assert beats.join(quick, 4, 100.0)
    assert not beats.join(Peer(60), 60, 101.0)
    assert beats.due_at == 102.0
    assert beats.due(101.9) == []
    assert beats.due(102.0) == [quick]
    assert beats.due_at == 104.0
    assert set(beats.due(130.0)) >= {slow, quick}


def test_however_many_intervals_there_are_few_are_looked_at():
    beats, peers = Beats(), [Peer(heartbeat_s) for heartbeat_s in range(1, 2_000)]
    for peer in peers:
        beats.join(peer, peer.heartbeat_s, 0.0)
    assert len(beats._due) <= 60
    assert set(beats.due(30.0)) == set(peers)
    for peer in peers:
        beats.leave(peer)
    assert beats.due_at == math.inf


def test_who_has_left_is_not_due_and_may_leave_again():
    beats, peer, other = Beats(), Peer(10), Peer(10)
    beats.join(peer, 10, 0.0)
    beats.join(other, 10, 0.0)
    for _ in range(2):
        beats.leave(peer)
    beats.leave(Peer(99))
    assert beats.due(5.0) == [other]
    beats.leave(other)
    assert beats.due_at == math.inf
