"""Parts: how much is kept of all, and who goes if it is too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Partial


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 500)), max_size=60))
def test_what_is_kept_of_all_parts_is_bounded_and_those_that_are_left_are_counted(sizes):
    left = {}
    parts = Partial(1_000, left.pop)
    for part, size in sizes:
        left[part] = size
        parts.holds(part, size)
        assert parts.held_bytes == sum(left.values()) <= 1_000
        assert [parts.held_of(n) for n in range(10)] == [left.get(n, 0) for n in range(10)]
    for part in range(10):
        parts.holds(part, 0)
    assert parts.held_bytes == 0


def test_those_that_have_the_most_make_room_until_an_eighth_is_free():
    closed = []
    parts = Partial(1_000, closed.append)
    for part, size in (("b", 300), ("d", 500), ("c", 200)):
        parts.holds(part, size)
    assert not closed
    parts.holds("a", 1)
    assert (closed, parts.held_bytes) == (["d"], 501)
    parts.holds("a", 501)
    assert (closed, parts.held_bytes) == (["d", "a"], 500)
    parts.holds("c", 701)
    assert (closed, parts.held_bytes) == (["d", "a", "c"], 300)


def test_as_many_go_as_it_takes():
    closed = []
    parts = Partial(1_000, closed.append)
    for part, size in ((1, 230), (2, 225), (3, 440), (4, 110)):
        parts.holds(part, size)
    assert (closed, parts.held_bytes) == ([3], 565)
    for part in range(5, 10):
        parts.holds(part, 90)
    assert (closed, parts.held_bytes) == ([3, 1], 785)


def test_who_gets_smaller_does_not_make_anybody_go():
    closed = []
    parts = Partial(1_000, closed.append)
    parts.holds("a", 600)
    parts.holds("b", 400)
    parts.holds("a", 590)
    assert (closed, parts.held_bytes) == ([], 990)


def test_who_goes_along_with_another_is_not_closed_once_more():
    closed = []

    def close(part):
        closed.append(part)
        parts.holds("its other part", 0)

    parts = Partial(1_000, close)
    parts.holds("its other part", 450)
    parts.holds("of another", 90)
    parts.holds("it", 461)
    assert (closed, parts.held_bytes) == (["it"], 90)
    parts.holds("its other part", 450)
    parts.holds("of another", 451)
    parts.holds("it", 452)
    assert (closed, parts.held_bytes) == (["it", "it"], 451)
