"""Do direct, fanout and headers exchanges find what they should?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PreconditionFailed
from gateway.model.declare import DEFAULT_OPTIONS, Binding, BindingOptions
from gateway.routing import exchange as exchanges
from gateway.routing.direct import Direct
from gateway.routing.exchange import Link
from gateway.routing.fanout import Fanout
from gateway.routing.headers import Headers
from gateway.routing.topic import Topic

ALL_TYPES = [Direct, Fanout, Topic, Headers]


def found(exchange, key="", headers=None):
    result = {}
    exchange.route(key, lambda: headers or {}, result)
    return result


def bind(exchange, key="", destination="q", *, arguments=None, options=DEFAULT_OPTIONS):
    link = Link(destination, Binding("x", str(destination), key, arguments=arguments or {}, options=options))
    exchange.bind(link)
    return link


def matches(arguments, headers):
    exchange = Headers()
    bind(exchange, arguments=arguments)
    return bool(found(exchange, headers=headers))


def test_options_that_say_the_same_are_one_object_but_for_those_with_identifiers():
    first, second, third = (
        Link("q", Binding("x", "q", key, options=BindingOptions(qos=1, mqtt=True, no_local=key == "c"))) for key in "abc"
    )
    assert first.options is second.options
    assert third.options == BindingOptions(qos=1, mqtt=True, no_local=True)
    many = [Link("q", Binding("x", "q", "a", options=BindingOptions(subscription_ids=(n,)))) for n in range(1_000)]
    assert [link.options.subscription_ids for link in many] == [(n,) for n in range(1_000)]
    assert len(exchanges._SHARED) <= exchanges.MOST_SHARED
    renewed = Binding("x", "q", "a", options=BindingOptions(qos=1, mqtt=True))
    many[0].renew(renewed)
    assert many[0].options is first.options


def test_direct_finds_equal_keys_only():
    exchange = Direct()
    bind(exchange, "a", 1)
    bind(exchange, "a", 2)
    bind(exchange, "a.b", 3)
    bind(exchange, "*", 4)
    assert list(found(exchange, "a")) == [1, 2]
    assert list(found(exchange, "*")) == [4]
    assert found(exchange, "") == {}


def test_fanout_finds_all_whatever_the_key():
    exchange = Fanout()
    bind(exchange, "a", 1)
    bind(exchange, "b", 2)
    assert list(found(exchange, "c")) == [1, 2]


@pytest.mark.parametrize("make", ALL_TYPES)
def test_nothing_is_found_where_nothing_is_bound(make):
    assert found(make(), "a") == {}
    assert len(make()) == 0


@pytest.mark.parametrize("make", ALL_TYPES)
def test_destination_that_was_found_before_gets_merged_options(make):
    exchange = make()
    bind(exchange, "a", options=BindingOptions(qos=1, subscription_ids=(2,)))
    result = {"q": BindingOptions(qos=0, subscription_ids=(1,))}
    exchange.route("a", dict, result)
    assert result == {"q": BindingOptions(qos=1, subscription_ids=(1, 2))}


@pytest.mark.parametrize("make", ALL_TYPES)
def test_what_is_unbound_is_not_found_and_not_listed(make):
    exchange = make()
    links = [bind(exchange, "a", destination) for destination in (1, 2, 3)]
    assert set(exchange) == set(links)
    for link in links:
        assert link.destination in found(exchange, "a")
        exchange.unbind(link)
        assert link.destination not in found(exchange, "a")
        assert link not in exchange
    assert len(exchange) == 0
    assert found(exchange, "a") == {}


@pytest.mark.parametrize("make", ALL_TYPES)
@pytest.mark.parametrize(("key", "reason"), [("a" * 65_536, "65535 bytes"), ("é" * 32_768, "65535 bytes"), ("\ud800", "UTF-8")])
def test_key_that_no_protocol_can_carry_is_refused_and_changes_nothing(make, key, reason):
    exchange = make()
    with pytest.raises(PreconditionFailed, match=reason):
        bind(exchange, key)
    assert len(exchange) == 0


@pytest.mark.parametrize(("make", "cacheable"), [(Direct, True), (Fanout, True), (Topic, True), (Headers, False)])
def test_only_headers_depends_on_more_than_the_key(make, cacheable):
    assert make().cacheable is cacheable


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}),
        ({}, {"a": 1}),
        ({}, {}),
        ({"x-match": "all"}, {}),
        ({"a": None}, {"a": "anything"}),
        ({"a": None}, {"a": None}),
        ({"x-match": "any", "a": None, "b": 1}, {"a": False}),
        ({"x-id": "7", "a": 1}, {"a": 1}),
        ({"x-match": "all-with-x", "x-id": "7"}, {"x-id": "7"}),
        ({"x-match": "any-with-x", "x-id": "7", "a": 1}, {"x-id": "7"}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}),
    ],
)
def test_headers_match(arguments, headers):
    assert matches(arguments, headers)


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"A": 1}),
        ({"x-match": "all", "a": 1, "b": 2}, {"a": 1}),
        ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "c": 1}),
        ({"x-match": "any"}, {"a": 1}),
        ({"x-match": "any", "x-id": "7"}, {"x-id": "7"}),
        ({"x-match": "all-with-x", "x-id": "7", "a": 1}, {"a": 1}),
        ({"x-match": "any-with-x"}, {"x-match": "any-with-x"}),
        ({"a": None}, {"b": 1}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": "1"}, {"a": 1}),
        ({"a": 0}, {"a": None}),
    ],
)
def test_headers_do_not_match(arguments, headers):
    assert not matches(arguments, headers)


@pytest.mark.parametrize("value", ["ALL", "", None, 1, ["all"], "none"])
def test_unknown_way_to_match_is_refused_and_changes_nothing(value):
    exchange = Headers()
    bind(exchange, arguments={"a": 1})
    with pytest.raises(PreconditionFailed, match="expected one of all, any, all-with-x, any-with-x"):
        bind(exchange, arguments={"x-match": value})
    assert len(exchange) == 1


def test_headers_are_not_decoded_for_an_exchange_without_bindings():
    Headers().route("", lambda: pytest.fail("decoded"), {})


def test_headers_are_decoded_once_for_many_bindings():
    exchange = Headers()
    for number in range(5):
        bind(exchange, destination=number, arguments={"a": number % 2})
    calls = []
    result = {}
    exchange.route("", lambda: calls.append(1) or {"a": 1}, result)
    assert (list(result), calls) == ([1, 3], [1])


names = st.sampled_from(["a", "b", "c", "x-a"])
values = st.sampled_from([0, 1, True, "1", None])


@given(
    st.dictionaries(names, values),
    st.dictionaries(names, values),
    st.sampled_from(["all", "any", "all-with-x", "any-with-x", None]),
)
def test_headers_agree_with_the_definition(wanted, given_, match):
    arguments = dict(wanted) if match is None else {**wanted, "x-match": match}
    counted = {name: value for name, value in wanted.items() if "with-x" in (match or "") or not name.startswith("x-")}
    hits = [name in given_ and (value is None or (repr(value) == repr(given_[name]))) for name, value in counted.items()]
    assert matches(arguments, given_) is (any(hits) if (match or "all").startswith("any") else all(hits))
