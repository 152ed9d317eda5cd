"""Do the patterns that prefixes make bring everything that was asked for?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.names import swap_key, swap_key_bytes
from gateway.routing.pattern import Pattern
from gateway_zeromq.endpoints.prefixes import NO_CHANGE, Change, Prefixes, pattern_of

WORD = st.text(st.sampled_from(["a", "b", "é", "€", "*", "#", "/", "+", "$"]), max_size=3)
KEYS = st.lists(WORD, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("prefix", "pattern"),
    [
        (b"", "#"),
        (b"plant", "*.#"),
        (b"plant.", "plant.*.#"),
        (b"plant.3.te", "plant.3.*.#"),
        (b"plant.*.te", "plant.*.*.#"),
        (b"plant.#.", "plant.#.*.#"),
        (b".", ".*.#"),
        ("é.x".encode(), "é.*.#"),
        ("x.é".encode()[:-1], "x.*.#"),
        (b"x.\xff", None),
        (b"\xff.x", None),
        ("é".encode()[:-1] + b".x", None),
        (b"a" * 65_536, None),
        (b"a." + b"b" * 65_533, "a.*.#"),
        (b"b" * 65_534 + b".", "#"),
    ],
)
def test_a_prefix_has_a_pattern_of_its_whole_words(prefix, pattern):
    assert pattern_of(prefix) == pattern


@given(key=KEYS, cut=st.integers(0, 30))
def test_every_key_is_matched_by_the_patterns_of_all_its_prefixes(key, cut):
    pattern = pattern_of(key.encode()[:cut])
    assert pattern is not None
    assert Pattern(pattern).matches(key)


@given(key=KEYS, cut=st.integers(0, 30))
def test_a_prefix_in_the_other_spelling_is_a_prefix_of_the_swapped_key(key, cut):
    topic = swap_key(key).encode()
    inner = swap_key_bytes(topic[:cut])
    assert key.encode().startswith(inner)
    assert Pattern(pattern_of(inner)).matches(key)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["", "a", "a.", "a.b", "b.", "b.*.", "b.#.c"]).map(str.encode)), max_size=40)
)
def test_what_is_bound_is_what_is_subscribed_to_and_nothing_twice(steps):
    prefixes, known, bound = Prefixes(100), set(), set()
    for subscribes, prefix in steps:
        change = prefixes.add(prefix) if subscribes else prefixes.remove(prefix)
        (known.add if subscribes else known.discard)(prefix)
        assert not set(change.bind) & bound
        assert set(change.unbind) <= bound
        bound = (bound | set(change.bind)) - set(change.unbind)
        assert bound == {pattern_of(prefix) for prefix in known} == set(prefixes.patterns())
        assert bool(prefixes) == bool(known)


@given(st.lists(KEYS.map(str.encode), max_size=10), KEYS.map(str.encode))
def test_a_key_is_wanted_if_it_begins_with_what_somebody_asked_for(subscribed, key):
    prefixes = Prefixes(100)
    for prefix in subscribed:
        prefixes.add(prefix)
    assert prefixes.want(key) == any(key.startswith(prefix) for prefix in subscribed)


def test_with_too_long_ones_everything_is_bound():
    prefixes = Prefixes(10)
    for n in range(1, 6):
        prefix = b"%d" % n * 500
        assert prefixes.add(prefix).unbind == ()
        assert not prefixes.overflowed
        prefixes.remove(b"1" * 500)
    prefixes.add(b"6" * 1_000)
    assert prefixes.overflowed


def test_with_too_many_everything_is_bound_until_all_have_gone():
    prefixes = Prefixes(2)
    assert prefixes.add(b"a.") == Change(bind=("a.*.#",))
    assert prefixes.add(b"a.x") == NO_CHANGE, "the same pattern"
    assert prefixes.add(b"b.") == Change(("#",), ["a.*.#"])
    assert prefixes.overflowed
    assert prefixes.remove(b"b.") == prefixes.add(b"c.") == NO_CHANGE
    assert prefixes.want(b"anything")
    assert (prefixes.patterns(), bool(prefixes), b"zzz" in prefixes) == (["#"], True, True)
