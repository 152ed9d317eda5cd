"""Heartbeats: who is due when; parts: who has the most."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway_amqp.beats import Beats
from gateway_amqp.partial import Partial


class Peer:
    def __init__(self, heartbeat_s: int = 60) -> None:
        self.heartbeat_s = heartbeat_s
        self.closed = False

    def beat(self) -> None:
        pass

    def too_much(self) -> None:
        self.closed = True


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


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 500)), max_size=60))
def test_what_is_kept_of_all_parts_is_bounded(sizes):
    parts, peers = Partial(1_000), [Peer() for _ in range(10)]
    for number, size in sizes:
        if not peers[number].closed:
            parts.holds(peers[number], size)
        assert parts.held_bytes <= 1_000
    for peer in peers:
        parts.holds(peer, 0)
    assert parts.held_bytes == 0


def test_those_that_have_the_most_make_room():
    parts, small, large = Partial(1_000), Peer(), Peer()
    parts.holds(small, 300)
    parts.holds(large, 701)
    assert (small.closed, large.closed, parts.held_bytes) == (False, True, 300)
