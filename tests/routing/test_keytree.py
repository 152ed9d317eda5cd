"""Are all stored keys found that match, and no others, in slices too, while keys come and go?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from gateway.routing import ordered
from gateway.routing.keytree import KeyTree
from gateway.routing.ordered import Ordered
from tests.routing.test_matching import is_match

KEY_WORDS = ["a", "b", "", "$s", "$", "*", "#", "b*", "a-", "a/", "a\0", "é"]
PATTERN_WORDS = ["*", "#", "a", "b", "", "$s", "b*", "a-", "a/"]
keys = st.lists(st.sampled_from(KEY_WORDS), max_size=5).map(".".join)
patterns = st.lists(st.sampled_from(PATTERN_WORDS), max_size=5).map(".".join)


def tree(*stored):
    result = KeyTree()
    for key in stored:
        result.put(key, key)
    return result


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Let a few keys fill several runs."""
    monkeypatch.setattr(ordered, "MOST", 8)


@given(st.lists(keys, max_size=30, unique=True), patterns, st.booleans())
@settings(max_examples=500)
def test_exactly_what_matches_is_found(stored, pattern, mqtt):
    assert sorted(tree(*stored).match(pattern, mqtt)) == sorted(key for key in stored if is_match(pattern, key, mqtt=mqtt))


@given(st.lists(keys, max_size=30, unique=True), patterns, st.booleans(), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=300)
def test_slices_of_any_size_find_the_same_and_are_no_larger_than_asked_for(stored, pattern, mqtt, most, visits):
    look_up = tree(*stored).look_up(pattern, mqtt)
    found = []
    while not look_up.done:
        part = look_up.next_slice(most, visits)
        assert len(part) <= most
        found += part
    assert found == sorted(key for key in stored if is_match(pattern, key, mqtt=mqtt))


class KeyTreeMachine(RuleBasedStateMachine):
    """Put and remove at random while look-ups go on; the model is a plain dictionary and the definition of a match."""

    put_keys = Bundle("put_keys")
    reading = Bundle("reading")

    def __init__(self):
        super().__init__()
        self.tree = KeyTree()
        self.model = {}
        self.readers = []

    @rule(target=put_keys, key=keys, value=st.integers())
    def put(self, key, value):
        self.tree.put(key, (key, value))
        self.model[key] = value
        for reader in self.readers:
            reader.allowed.add(key)
        return multiple(key)

    @rule(key=st.one_of(put_keys, keys))
    def remove(self, key):
        assert self.tree.remove(key) is (self.model.pop(key, None) is not None)
        for reader in self.readers:
            reader.stable.discard(key)

    @rule(pattern=patterns, mqtt=st.booleans())
    def match(self, pattern, mqtt):
        expected = [(key, value) for key, value in self.model.items() if is_match(pattern, key, mqtt=mqtt)]
        assert sorted(self.tree.match(pattern, mqtt)) == sorted(expected)

    @rule(key=keys)
    def get(self, key):
        found = self.tree.get(key)
        assert found == ((key, self.model[key]) if key in self.model else None)

    @rule(target=reading, pattern=patterns, mqtt=st.booleans())
    def begin(self, pattern, mqtt):
        reader = Reader(self.tree.look_up(pattern, mqtt), pattern, mqtt, self.model)
        self.readers.append(reader)
        return reader

    @rule(reader=reading, most=st.integers(1, 3), visits=st.integers(1, 5))
    def go_on(self, reader, most, visits):
        for key, value in reader.look_up.next_slice(most, visits):
            assert key not in reader.seen
            assert key in reader.allowed
            assert is_match(reader.pattern, key, mqtt=reader.mqtt)
            assert self.model[key] == value, "as it is now"
            reader.seen.add(key)

    @rule(reader=consumes(reading))
    def finish(self, reader):
        while not reader.look_up.done:
            self.go_on(reader, 2, 3)
        self.readers.remove(reader)
        assert reader.stable <= reader.seen
        assert reader.look_up.next_slice(1, 1) == []

    @invariant()
    def counts_are_right(self):
        assert len(self.tree) == len(self.model)


class Reader:
    def __init__(self, look_up, pattern, mqtt, model):
        self.look_up, self.pattern, self.mqtt = look_up, pattern, mqtt
        self.stable = {key for key in model if is_match(pattern, key, mqtt=mqtt)}
        self.allowed = set(model)
        self.seen = set()


TestKeyTreeMachine = KeyTreeMachine.TestCase
TestKeyTreeMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def steps(stored, pattern, visits=1):
    """Count slices of one visit: what a look-up costs, up to a factor."""
    look_up = stored.look_up(pattern)
    count = 0
    while not look_up.done:
        look_up.next_slice(10**9, visits)
        count += 1
    return count


@pytest.fixture
def plant():
    return tree(*(f"plant.{n}.{what}" for n in range(300) for what in ("a", "b", "c.d", "c.e")), *(f"zoo.{n}" for n in range(300)))


@pytest.mark.parametrize(("pattern", "most"), [("plant.7.b", 3), ("plant.7.#", 8), ("none.#", 3), ("plant.7.c.#", 5)])
def test_words_and_words_before_a_hash_cost_what_matches(plant, pattern, most):
    assert steps(plant, pattern) <= most


def test_other_patterns_cost_what_lies_below_the_words_that_lead_them(plant):
    assert steps(plant, "plant.7.*") <= 8
    assert steps(plant, "zoo.*") <= 302
    assert steps(plant, "zoo.#.nowhere") <= 302


def test_what_can_not_match_is_jumped_over(plant):
    deep = tree(*(f"x.{n}.{m}" for n in range(10) for m in range(100)), *(f"x.{n}" for n in range(10)))
    assert list(deep.match("x.*")) == [f"x.{n}" for n in range(10)]
    assert steps(deep, "x.*") <= 40
    assert list(deep.match("x.*.50")) == [f"x.{n}.50" for n in range(10)]
    assert steps(deep, "x.*.50") <= 50


def test_a_slice_ends_after_so_many_visits_though_nothing_matches(plant):
    assert plant.look_up("#.nowhere").next_slice(10, 50) == []
    assert steps(plant, "#.nowhere", 50) >= 1500 // 60


def test_long_keys_count_as_several_visits():
    long = tree(*(f"{n}." + "a." * 1000 for n in range(10)))
    assert steps(long, "#.nowhere", 20) >= 10


def test_values_are_replaced_in_place():
    stored = tree("a", "b")
    stored.put("a", "new")
    assert list(stored.match("#")) == ["new", "b"]
    assert len(stored) == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=200))
@settings(max_examples=200)
def test_things_stay_in_order_in_runs_of_bounded_length(changes):
    things, model = Ordered(), set()
    for add, thing in changes:
        if add and thing not in model:
            things.add(thing)
            model.add(thing)
        elif not add and thing in model:
            things.discard(thing)
            model.discard(thing)
    assert list(things) == sorted(model)
    assert things.first() == (min(model) if model else None)
    assert all(0 < len(run) <= 9 for run in things._runs)
    for least in (0, 13, 61):
        run, at = things.run_from(least)
        rest = sorted(thing for thing in model if thing >= least)
        assert run[at : at + 1] == rest[:1]


def test_runs_that_became_short_are_joined():
    things = Ordered()
    for n in range(1000):
        things.add(n)
    for n in range(1000):
        if n % 100:
            things.discard(n)
    assert list(things) == list(range(0, 1000, 100))
    assert len(things._runs) <= 10
