"""Does every message go to exactly one binding, always the same, in shares as the weights say?"""

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import PreconditionFailed
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec
from gateway.model.properties import Properties
from gateway.routing.consistent_hash import ConsistentHash
from gateway.routing.exchange import Link
from gateway.routing.table import Table

KEYS = [f"device.{number}" for number in range(20_000)]


def exchange(weights, **arguments):
    made = ConsistentHash(ExchangeSpec("x", "x-consistent-hash", arguments={k.replace("_", "-"): v for k, v in arguments.items()}))
    for name, weight in weights.items():
        bind(made, name, weight)
    return made


def bind(made, name, weight):
    link = Link(name, Binding("x", name, str(weight)))
    made.bind(link)
    return link


def way(made, key="", properties=None):
    found = {}
    made.route(key, lambda: properties or Properties(), found)
    (destination,) = found
    return destination


def ways(made):
    return {key: way(made, key) for key in KEYS}


def unlikely(counts, shares):
    """Return chi squared per degree of freedom: about 1 if the shares are as expected."""
    total = sum(counts.values())
    expected = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    return sum((counts[name] - wanted) ** 2 / wanted for name, wanted in expected.items()) / (len(shares) - 1)


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {f"q{n}": 1 for n in range(10)}, {"a": 1, "b": 2, "c": 7}, {"a": 1000, "b": 10}]
)
def test_shares_are_as_the_weights_say(weights):
    assert unlikely(Counter(ways(exchange(weights)).values()), weights) < 6


def test_keys_that_differ_little_are_spread_too():
    made = exchange({f"q{n}": 1 for n in range(4)})
    assert unlikely(Counter(way(made, str(number)) for number in range(4000)), dict.fromkeys(["q0", "q1", "q2", "q3"], 1)) < 6


def test_a_new_binding_takes_its_share_and_moves_nothing_else():
    made = exchange({f"q{n}": 1 for n in range(4)})
    before = ways(made)
    bind(made, "new", 1)
    after = ways(made)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"new"}
    assert 0.17 < len(moved) / len(KEYS) < 0.23


def test_a_binding_that_goes_gives_its_share_to_all_others_and_moves_nothing_else():
    made = exchange({f"q{n}": 1 for n in range(4)})
    extra = bind(made, "extra", 1)
    before = ways(made)
    made.unbind(extra)
    after = ways(made)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {before[key] for key in moved} == {"extra"}
    assert unlikely(Counter(after[key] for key in moved), {f"q{n}": 1 for n in range(4)}) < 6


def test_a_weight_that_rises_moves_messages_to_that_binding_alone():
    light, heavy = ways(exchange({"a": 1, "b": 1, "c": 1})), ways(exchange({"a": 1, "b": 3, "c": 1}))
    assert {heavy[key] for key in KEYS if light[key] != heavy[key]} == {"b"}


@given(st.permutations(["a", "b", "c", "d"]))
@settings(max_examples=10, deadline=None)
def test_the_order_of_binding_does_not_matter(order):
    made = exchange(dict.fromkeys(order, 2))
    assert [way(made, key) for key in KEYS[:200]] == [way(exchange(dict.fromkeys("abcd", 2)), key) for key in KEYS[:200]]


def test_ways_are_the_same_in_every_process_and_version():
    made = exchange({"a": 1, "b": 1, "c": 2})
    here = "".join(way(made, key) for key in KEYS[:40])
    assert here == FIXED
    program = (
        "from gateway.routing.consistent_hash import ConsistentHash as C\n"
        "from gateway.model.declare import Binding, ExchangeSpec\n"
        "from gateway.routing.exchange import Link\n"
        "x = C(ExchangeSpec('x', 'x-consistent-hash'))\n"
        "for name, weight in (('c', '2'), ('a', '1'), ('b', '1')):\n"
        "    x.bind(Link(name, Binding('x', name, weight)))\n"
        "for number in range(40):\n"
        "    found = {}\n"
        "    x.route(f'device.{number}', dict, found)\n"
        "    print(*found, end='')\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    assert told.stdout == FIXED


FIXED = "acbbbaacacbbaccccccccbabcccacaabcbcbabbc"


def test_header_that_the_exchange_names_is_hashed_and_the_key_is_not():
    made = exchange(dict.fromkeys("abcd", 1), hash_header="customer")
    assert not made.cacheable
    assert len({way(made, key, Properties(headers={"customer": "x"})) for key in KEYS[:100]}) == 1
    assert len({way(made, "k", Properties(headers={"customer": number})) for number in range(100)}) == 4


def test_headers_alone_will_do_where_a_header_is_hashed():
    made = exchange(dict.fromkeys("abcd", 1), hash_header="customer")
    found = {}
    made.route("k", lambda: {"customer": "x"}, found)
    assert list(found) == [way(made, "k", Properties(headers={"customer": "x"}))]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("message_id", lambda n: Properties(message_id=f"m{n}")),
        ("correlation_id", lambda n: Properties(correlation_id=f"m{n}".encode())),
        ("timestamp", lambda n: Properties(timestamp_s=n)),
    ],
)
def test_property_that_the_exchange_names_is_hashed(name, make):
    made = exchange(dict.fromkeys("abcd", 1), hash_property=name)
    assert not made.cacheable
    assert len({way(made, key, make(1)) for key in KEYS[:100]}) == 1
    assert len({way(made, "k", make(number)) for number in range(100)}) == 4
    assert len({way(made, key) for key in KEYS[:100]}) == 1  # what lacks it goes one way


def test_text_and_bytes_of_one_value_go_the_same_way():
    made = exchange(dict.fromkeys("abcd", 1), hash_property="correlation_id")
    for number in range(20):
        text = f"id-{number}"
        assert way(made, "", Properties(correlation_id=text)) == way(made, "", Properties(correlation_id=text.encode()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hash_header": "a", "hash_property": "message_id"}, "not together with 'hash-header'"),
        ({"hash_property": "reply_to"}, "one of correlation_id, message_id, timestamp is allowed, not 'reply_to'"),
        ({"hash_property": ["message_id"]}, "is allowed, not"),
        ({"hash_header": 1}, "text is allowed, not 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(PreconditionFailed, match=words):
        exchange({}, **arguments)


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "must be an integer"), ("x", "must be an integer"), ("1.5", "must be an integer"), ("¹", "must be an integer"),
     ("0", "greater than 0"), ("-3", "greater than 0"), ("9" * 13, "must be an integer")],
)  # fmt: skip
def test_binding_key_that_is_no_weight_is_refused_and_changes_nothing(key, words):
    made = exchange({"a": 1})
    with pytest.raises(PreconditionFailed, match=words):
        bind(made, "b", key)
    assert len(made) == 1
    assert way(made, "k") == "a"


def test_nothing_is_found_and_nothing_decoded_where_nothing_is_bound():
    found = {}
    exchange({}, hash_header="h").route("k", lambda: pytest.fail("decoded"), found)
    assert found == {}


def test_a_destination_that_is_bound_twice_counts_once_with_its_greater_weight():
    made = exchange({"a": 1, "b": 1})
    bind(made, "a", 3)
    assert unlikely(Counter(ways(made).values()), {"a": 3, "b": 1}) < 6


def test_a_table_routes_by_it_between_queues_and_exchanges():
    queues = {}
    table = Table(queues.get)
    table.declare(ExchangeSpec("x", "x-consistent-hash"))
    table.declare(ExchangeSpec("behind", "fanout"))
    table.bind(Binding("x", "q", "1"), "q")
    table.bind(Binding("x", "behind", "1", to_exchange=True))
    table.bind(Binding("behind", "far"), "far")
    reached = Counter()
    for key in KEYS[:1000]:
        found, cacheable = table.resolve("x", key, dict)
        assert cacheable
        reached[tuple(found)] += 1
    assert set(reached) == {("q",), ("far",)}
    assert min(reached.values()) > 400


def test_options_of_a_binding_that_is_made_again_hold_at_once():
    table = Table({}.get)
    table.declare(ExchangeSpec("x", "x-consistent-hash"))
    table.bind(Binding("x", "q", "1"), "q")
    table.resolve("x", "k", dict)
    table.bind(Binding("x", "q", "1", options=BindingOptions(qos=0)), "q")
    assert table.resolve("x", "k", dict)[0] == {"q": BindingOptions(qos=0)}
