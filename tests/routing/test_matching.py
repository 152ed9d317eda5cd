"""Do the tree of patterns, the single pattern and the tree of keys agree with the definition of a match?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.errors import PreconditionFailed
from gateway.model.declare import DEFAULT_OPTIONS, Binding, BindingOptions
from gateway.model.names import swap_key, words
from gateway.routing.exchange import Link
from gateway.routing.keytree import KeyTree
from gateway.routing.pattern import Pattern
from gateway.routing.topic import MAX_PATTERN_WORDS, Places, Topic, advance, enter

KEY_WORDS = ["a", "b", "", "$s", "*", "#", "b*"]
PATTERN_WORDS = ["*", "#", "a", "b", "", "$s", "b*"]
MQTT = BindingOptions(mqtt=True)

keys = st.lists(st.sampled_from(KEY_WORDS), max_size=6).map(".".join)
patterns = st.lists(st.sampled_from(PATTERN_WORDS), max_size=6).map(".".join)


def defined(pattern, key):
    """The definition, word by word, with no thought of cost."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(defined(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and defined(pattern[1:], key[1:])


def is_match(pattern, key, *, mqtt=False):
    pattern, key = words(pattern), words(key)
    spared = mqtt and pattern[:1] in (["*"], ["#"]) and key[:1] != [] and key[0].startswith("$")
    return not spared and defined(pattern, key)


def no_headers():
    raise AssertionError("a topic exchange asked for headers")


def topic(*patterns, options=DEFAULT_OPTIONS):
    exchange = Topic()
    for pattern in patterns:
        exchange.bind(Link(pattern, Binding("x", "q", pattern, options=options)))
    return exchange


def found(exchange, key):
    result = {}
    exchange.route(key, no_headers, result)
    return result


def tree(*stored):
    result = KeyTree()
    for key in stored:
        result.put(key, key)
    return result


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("", ""),
        ("#", ""),
        ("#.#", ""),
        ("#", "a"),
        ("#", "a.b.c"),
        ("a.#", "a"),
        ("#.a", "a"),
        ("a.#.b", "a.b"),
        ("a.#.b", "a.x.y.b"),
        ("#.a.#", "a"),
        ("*", "a"),
        ("*.*", "a.b"),
        ("*.#", "a"),
        ("#.*", "a"),
        ("#.*.b", "a.b"),
        ("a..b", "a..b"),
        ("a.*.b", "a..b"),
        ("*.*", "."),
        ("*.*.*", "a.."),
        ("a#", "a#"),
        ("*", "*"),
        ("*", "#"),
        ("#", "*.#"),
    ],
)
def test_pattern_matches(pattern, key):
    assert is_match(pattern, key)
    assert found(topic(pattern), key) == {pattern: DEFAULT_OPTIONS}
    assert Pattern(pattern).matches(key)
    assert list(tree(key).match(pattern)) == [key]


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("", "a"),
        ("*", ""),
        ("a", ""),
        ("*", "a.b"),
        ("a.*", "a"),
        ("*.*", "a"),
        ("*.#", ""),
        ("a.#.b", "a"),
        ("a.#.b", "b"),
        ("a.b", "a..b"),
        ("a", "a."),
        ("a", ".a"),
        ("a#", "ab"),
        ("a*", "ab"),
        ("A", "a"),
    ],
)
def test_pattern_does_not_match(pattern, key):
    assert not is_match(pattern, key)
    assert found(topic(pattern), key) == {}
    assert not Pattern(pattern).matches(key)
    assert list(tree(key).match(pattern)) == []


@pytest.mark.parametrize(
    ("filter_", "name", "matches"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/#", "sport", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+/+/c", "a//c", True),
        ("#", "/", True),
        ("plant/3/v1.2", "plant/3/v1.2", True),
        ("plant/+", "plant/v1.2", True),
        ("plant/+", "plant/*", True),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/+", "a/$x", True),
        ("a/#", "a/$x", True),
    ],
)
def test_filter_matches_as_mqtt_3_1_1_section_4_7_says(filter_, name, matches):
    pattern, key = swap_key(filter_), swap_key(name)
    assert bool(found(topic(pattern, options=MQTT), key)) is matches
    assert Pattern(pattern, mqtt=True).matches(key) is matches
    assert bool(list(tree(key).match(pattern, mqtt=True))) is matches


def test_leading_wildcard_of_a_binding_that_is_not_mqtts_matches_dollar():
    exchange = topic("#")
    exchange.bind(Link("phone", Binding("x", "phone", "#", options=MQTT)))
    assert found(exchange, "$x.y") == {"#": DEFAULT_OPTIONS}
    assert found(exchange, "SYS.x") == {"#": DEFAULT_OPTIONS, "phone": MQTT}


def test_what_the_broker_says_of_itself_comes_to_those_who_name_it():
    exchange = topic("#")
    for pattern in ("*.broker.#", "$SYS.#", "$SYS.broker.uptime"):
        exchange.bind(Link(pattern, Binding("x", pattern, pattern)))
    assert set(found(exchange, "$SYS.broker.uptime")) == {"$SYS.#", "$SYS.broker.uptime"}
    assert set(found(exchange, "$SYSTEM.broker.uptime")) == {"#", "*.broker.#"}


@given(patterns, keys, st.booleans())
@settings(max_examples=400)
def test_single_pattern_agrees_with_the_definition(pattern, key, mqtt):
    assert Pattern(pattern, mqtt=mqtt).matches(key) is is_match(pattern, key, mqtt=mqtt)


@given(st.lists(patterns, max_size=12, unique=True), keys, st.booleans())
@settings(max_examples=300)
def test_tree_of_patterns_agrees_with_the_definition(bound, key, mqtt):
    exchange = topic(*bound, options=MQTT if mqtt else DEFAULT_OPTIONS)
    assert set(found(exchange, key)) == {pattern for pattern in bound if is_match(pattern, key, mqtt=mqtt)}


@given(st.lists(keys, max_size=12, unique=True), patterns, st.booleans())
@settings(max_examples=300)
def test_tree_of_keys_agrees_with_the_definition(stored, pattern, mqtt):
    matched = list(tree(*stored).match(pattern, mqtt))
    assert sorted(matched) == sorted(key for key in stored if is_match(pattern, key, mqtt=mqtt))


def visits(exchange, key):
    """Count the nodes that are visited for a key."""
    ended: Places = {}
    active: Places = {}
    enter(exchange._root, active, ended)
    total = len(active) + len(ended)
    for word in words(key):
        active = advance(active, word, ended)
        total += len(active)
    return total


def nodes(node):
    return 1 + sum(nodes(child) for child in node.below())


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        (".".join(["#", "a"] * 20 + ["#", "b"]), ".".join(["a"] * 200), False),
        (".".join(["#", "a"] * 20 + ["#", "b"]), ".".join([*["a"] * 200, "b"]), True),
        (".".join(["#", "*"] * 30), ".".join(["a"] * 200), True),
        (".".join(["#"] * 60), ".".join(["a"] * 200), True),
        (".".join(["#", "a", "#", "*"] * 15 + ["c"]), ".".join(["a"] * 300), False),
    ],
)
def test_patterns_that_explode_when_followed_one_by_one_are_visited_a_bounded_number_of_times(pattern, key, matches):
    exchange = topic(pattern)
    assert bool(found(exchange, key)) is matches
    assert Pattern(pattern).matches(key) is matches
    assert list(tree(key).match(pattern)) == [key] * matches
    assert visits(exchange, key) <= nodes(exchange._root) * (len(words(key)) + 1)


def test_what_branches_at_every_word_is_visited_once_per_node():
    exchange = Topic()
    for number in range(256):
        pattern = ".".join("a" if number >> bit & 1 else "*" for bit in range(8))
        exchange.bind(Link(number, Binding("x", "q", pattern)))
    assert len(found(exchange, ".".join("a" * 8))) == 256
    assert visits(exchange, ".".join("a" * 8)) == nodes(exchange._root)


def test_a_pattern_that_ends_in_a_hash_costs_nothing_for_the_words_behind_it():
    exchange = topic("a.#", "#")
    assert visits(exchange, ".".join(["a"] * 1000)) <= 5


def test_filters_that_do_not_match_are_not_visited():
    exchange = topic(*(f"plant.{number}.#" for number in range(1000)))
    assert visits(exchange, "plant.7.temperature.celsius") <= 6


def test_keys_of_many_thousand_words_are_matched_without_recursion():
    key = ".".join(["a"] * 30_000)
    assert set(found(topic("#.a", "a.#", "*.#.a", "b.#"), key)) == {"#.a", "a.#", "*.#.a"}
    keys_ = tree(key, key + ".b", "a")
    assert list(keys_.match("a.#.b")) == [key + ".b"]
    assert keys_.get(key) == key
    assert keys_.remove(key)
    assert sorted(keys_.match("#"), key=len) == ["a", key + ".b"]


def test_pattern_with_more_words_than_amqp_can_write_is_refused_and_changes_nothing():
    exchange = topic("#")
    longest = ".".join([""] * MAX_PATTERN_WORDS)
    exchange.bind(Link("longest", Binding("x", "q", longest)))
    assert found(exchange, longest) == {"longest": DEFAULT_OPTIONS, "#": DEFAULT_OPTIONS}
    with pytest.raises(PreconditionFailed, match="256 words, not 257"):
        exchange.bind(Link("q", Binding("x", "q", "a" + "." * 256)))
    assert len(exchange) == 2


def test_pattern_can_be_as_long_as_any_in_amqp():
    assert len(words("." * 255)) == MAX_PATTERN_WORDS


def test_unbinding_leaves_no_nodes_behind():
    exchange = topic("a.*.#.b", "a.*", "#")
    for link in list(exchange):
        exchange.unbind(link)
    assert nodes(exchange._root) == 1


class TopicMachine(RuleBasedStateMachine):
    """Bind and unbind at random; the model is a plain dictionary and the definition of a match."""

    bound = Bundle("bound")

    def __init__(self):
        super().__init__()
        self.exchange = Topic()
        self.links = {}

    @rule(
        target=bound,
        key=patterns,
        destination=st.integers(0, 3),
        arguments=st.sampled_from([{}, {"n": 1}]),
        options=st.sampled_from([DEFAULT_OPTIONS, MQTT, BindingOptions(qos=0), BindingOptions(qos=1, subscription_ids=(7,))]),
    )
    def bind(self, key, destination, arguments, options):
        link = Link(destination, Binding("x", str(destination), key, arguments=arguments, options=options))
        self.exchange.bind(link)
        self.links[link] = (key, destination, options)
        return link

    @rule(link=consumes(bound))
    def unbind(self, link):
        self.exchange.unbind(link)
        del self.links[link]

    @rule(key=keys)
    def route(self, key):
        expected = {}
        for pattern, destination, options in self.links.values():
            if is_match(pattern, key, mqtt=options.mqtt):
                expected.setdefault(destination, []).append(options)
        result = found(self.exchange, key)
        assert set(result) == set(expected)
        for destination, several in expected.items():
            merged = result[destination]
            assert merged.qos == max(options.qos for options in several)
            assert set(merged.subscription_ids) == {number for options in several for number in options.subscription_ids}

    @invariant()
    def counts_are_right(self):
        assert len(self.exchange) == len(self.links)
        assert set(self.exchange) == set(self.links)
        assert bool(self.links) is (nodes(self.exchange._root) > 1 or self.exchange._root.links is not None)


TestTopicMachine = TopicMachine.TestCase
TestTopicMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
