"""Does a virtual host's table keep exchanges and bindings as AMQP says, and resolve through them?"""

import dataclasses

import pytest

from gateway.errors import AccessRefused, CommandInvalid, NotFound, PreconditionFailed
from gateway.model.declare import DEFAULT_OPTIONS, Binding, BindingOptions, ExchangeSpec
from gateway.routing.table import Table


class Queue:
    """A destination that answers nothing: routing may not look inside."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"

    def __eq__(self, other):
        raise AssertionError("routing compared two queues by value") if other is not self else None

    __hash__ = object.__hash__


class World:
    """A table and the queues of its virtual host."""

    def __init__(self):
        self.queues = {}
        self.table = Table(self.queues.get)

    def declare(self, name, type_="direct", **more):
        return self.table.declare(ExchangeSpec(name, type_, **more))

    def queue(self, name):
        return self.queues.setdefault(name, Queue(name))

    def bind(self, source, destination, key="", **more):
        return self.table.bind(Binding(source, destination, key, **more), self.queue(destination))

    def chain(self, source, destination, key="", **more):
        return self.table.bind(Binding(source, destination, key, to_exchange=True, **more))

    def reached(self, exchange, key="", headers=None, also=()):
        found, _ = self.table.resolve(exchange, key, lambda: headers or {}, also)
        return [queue.name for queue in found]

    def options(self, exchange, key=""):
        found, _ = self.table.resolve(exchange, key, dict)
        return {queue.name: options for queue, options in found.items()}


@pytest.fixture
def world():
    return World()


# -- declaring -----------------------------------------------------------------


def test_six_exchanges_are_predeclared(world):
    kinds = {exchange.spec.name: exchange.spec.type for exchange in world.table}
    assert kinds == {
        "": "direct",
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.topic": "topic",
        "amq.headers": "headers",
        "amq.match": "headers",
    }
    assert all(exchange.spec.durable for exchange in world.table)


def test_declaring_tells_whether_it_made_the_exchange(world):
    assert world.declare("x", "topic")
    assert not world.declare("x", "topic")
    assert world.table.get("x").spec.type == "topic"


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("type", "topic", "'type' .*received 'topic' but current is 'direct'"),
        ("durable", False, "'durable' .*received 'false' but current is 'true'"),
        ("auto_delete", True, "'auto_delete' .*received 'true' but current is 'false'"),
        ("internal", True, "'internal' .*received 'true' but current is 'false'"),
        ("alternate", "other", "'alternate-exchange' .*received the value 'other' of type 'longstr' but current is none"),
        ("arguments", {"hash-header": 1}, "'hash-header' .*received the value '1' of type 'signedint' but current is none"),
        (
            "arguments",
            {"hash-header": True, "x-z": 1},
            "'hash-header' for exchange .*received the value 'true' of type 'bool' but current is none",
        ),
    ],
)
def test_declaring_again_otherwise_is_refused_and_names_what_differs(world, attribute, value, words):
    world.declare("x")
    there = world.table.get("x")
    with pytest.raises(PreconditionFailed, match=words):
        world.table.declare(dataclasses.replace(ExchangeSpec("x"), **{attribute: value}))
    assert world.table.get("x") is there


@pytest.mark.parametrize(("one", "other"), [("1", 1), (1, True), (1, 1.0), (None, "null"), ({"b": 1}, {"b": "1"})])
def test_arguments_that_look_alike_are_not_the_same(world, one, other):
    world.declare("x", arguments={"hash-header": one})
    with pytest.raises(PreconditionFailed, match="inequivalent arg 'hash-header' for exchange 'x'"):
        world.declare("x", arguments={"hash-header": other})


def test_arguments_without_a_meaning_may_differ(world):
    world.declare("x", arguments={"a": 1})
    assert not world.declare("x", arguments={"a": 2, "b": 3})


def test_arguments_in_another_order_are_the_same(world):
    world.declare("x", arguments={"a": 1, "b": 2})
    assert not world.declare("x", arguments={"b": 2, "a": 1})


def test_reserved_name_is_refused_for_a_new_exchange(world):
    with pytest.raises(AccessRefused, match="reserved"):
        world.declare("amq.mine")
    assert world.table.find("amq.mine") is None


def test_predeclared_exchange_can_be_declared_as_it_is_and_not_otherwise(world):
    assert not world.declare("amq.topic", "topic")
    with pytest.raises(PreconditionFailed, match="'type'"):
        world.declare("amq.topic", "direct")


def test_unknown_type_is_an_invalid_command(world):
    with pytest.raises(CommandInvalid, match=r"^unknown exchange type 'x-random'$"):
        world.declare("x", "x-random")
    assert world.table.find("x") is None


def test_delayed_exchange_routes_as_the_type_behind_it_does(world):
    world.declare("x", "x-delayed-message", arguments={"x-delayed-type": "topic"})
    world.bind("x", "q", "a.*")
    assert world.reached("x", "a.b") == ["q"]
    assert world.reached("x", "a") == []
    world.declare("y", "x-delayed-message", arguments={"x-delayed-type": "x-consistent-hash", "hash-header": "h"})
    world.bind("y", "q", "1")
    assert world.reached("y", "k", {"h": 1}) == ["q"]


@pytest.mark.parametrize(
    "arguments", [{}, {"x-delayed-type": "x-delayed-message"}, {"x-delayed-type": "x-random"}, {"x-delayed-type": 1}]
)
def test_delayed_exchange_without_a_type_behind_it_is_refused(world, arguments):
    with pytest.raises((PreconditionFailed, CommandInvalid), match="type"):
        world.declare("x", "x-delayed-message", arguments=arguments)
    assert world.table.find("x") is None


def test_name_has_at_most_255_bytes(world):
    assert world.declare("é" * 127)
    with pytest.raises(PreconditionFailed, match="255 bytes"):
        world.declare("é" * 128)


def test_the_default_exchange_takes_no_definitions(world):
    world.declare("x")
    world.queue("q")
    for refused in (
        lambda: world.declare(""),
        lambda: world.table.delete(""),
        lambda: world.bind("", "q", "key"),
        lambda: world.table.unbind(Binding("", "q", "q")),
        lambda: world.chain("x", ""),
    ):
        with pytest.raises(AccessRefused, match="default exchange"):
            refused()


def test_an_absent_exchange_is_named(world):
    with pytest.raises(NotFound, match="no exchange 'x' in vhost '/'"):
        world.table.get("x")
    for missing in (
        lambda: world.table.delete("x"),
        lambda: world.bind("x", "q"),
        lambda: world.table.unbind(Binding("x", "q")),
        lambda: world.reached("x", "k"),
        lambda: world.chain("amq.topic", "x"),
    ):
        with pytest.raises(NotFound):
            missing()


# -- binding -------------------------------------------------------------------


def test_binding_again_replaces_options_and_tells_so(world):
    assert world.bind("amq.topic", "q", "a.#")
    assert not world.bind("amq.topic", "q", "a.#", options=BindingOptions(qos=0))
    assert world.options("amq.topic", "a") == {"q": BindingOptions(qos=0)}
    assert [binding.options for binding in world.table.bindings_of("q", False)] == [BindingOptions(qos=0)]
    assert [binding.options.qos for binding in world.table.get("amq.topic").bindings.values()] == [0]


def test_binding_again_for_a_new_queue_of_the_name_forgets_the_old_queue(world):
    world.bind("amq.topic", "q", "a")
    world.queues["q"] = renewed = Queue("q")
    assert not world.bind("amq.topic", "q", "a")
    found, _ = world.table.resolve("amq.topic", "a", dict)
    assert list(found) == [renewed]


def test_bindings_of_one_queue_over_several_exchanges_are_listed_in_order(world):
    world.bind("amq.topic", "q", "b")
    world.bind("amq.direct", "q", "a")
    world.bind("amq.topic", "other", "b")
    assert [(binding.source, binding.key) for binding in world.table.bindings_of("q")] == [("amq.topic", "b"), ("amq.direct", "a")]
    assert world.table.bindings_of("q", True) == []
    assert world.table.bindings_of("nobody") == []


def test_queue_and_exchange_of_one_name_are_two_destinations(world):
    world.declare("same", "fanout")
    world.bind("same", "behind")
    world.bind("amq.direct", "same", "k")
    world.chain("amq.direct", "same", "k")
    assert world.reached("amq.direct", "k") == ["same", "behind"]
    assert len(world.table.unbind_all("same", False)) == 1
    assert world.reached("amq.direct", "k") == ["behind"]


def test_unbinding_needs_key_and_arguments_but_not_options(world):
    world.bind("amq.headers", "q", "k", arguments={"a": 1}, options=BindingOptions(qos=1))
    assert not world.table.unbind(Binding("amq.headers", "q", "k"))
    assert not world.table.unbind(Binding("amq.headers", "q", arguments={"a": 1}))
    assert world.table.unbind(Binding("amq.headers", "q", "k", arguments={"a": 1}))
    assert world.table.bindings_of("q") == []
    assert world.reached("amq.headers", headers={"a": 1}) == []


def test_refused_binding_changes_nothing(world):
    with pytest.raises(PreconditionFailed):
        world.bind("amq.headers", "q", arguments={"x-match": "some"})
    assert world.table.bindings_of("q") == []
    assert not world.table.get("amq.headers").bindings


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_bindings_that_differ_in_arguments_alone_are_two(world, kind):
    world.declare("x", kind)
    assert world.bind("x", "q", "a", options=BindingOptions(qos=0))
    assert world.bind("x", "q", "a", arguments={"x-note": "second"}, options=BindingOptions(qos=1))
    assert not world.bind("x", "q", "a", options=BindingOptions(qos=2))
    assert len(world.table.get("x").bindings) == 2
    assert world.options("x", "a") == {"q": BindingOptions(qos=2)}
    assert world.table.unbind(Binding("x", "q", "a"))
    assert world.options("x", "a") == {"q": BindingOptions(qos=1)}


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_unbinding_tells_whether_it_was_there(world, kind):
    world.declare("x", kind)
    world.bind("x", "q", "a")
    world.queue("other")
    assert not world.table.unbind(Binding("x", "q", "b"))
    assert not world.table.unbind(Binding("x", "other", "a"))
    assert world.table.unbind(Binding("x", "q", "a"))
    assert not world.table.unbind(Binding("x", "q", "a"))
    assert world.reached("x", "a") == []
    assert not world.table.get("x").bindings


def test_bindings_of_an_exchange_are_found_by_their_identity(world):
    world.bind("amq.topic", "q", "a")
    world.bind("amq.direct", "q", "a")
    bindings = world.table.get("amq.topic").bindings
    assert bindings.get(Binding("amq.topic", "q", "a").identity()) == Binding("amq.topic", "q", "a")
    assert bindings.get(Binding("amq.direct", "q", "a").identity()) is None
    assert bindings.get(Binding("amq.topic", "nobody", "a").identity()) is None


def test_everything_that_is_bound_to_a_queue_goes_with_it(world):
    for key in ("a", "b.*"):
        world.bind("amq.topic", "q", key)
        world.bind("amq.topic", "other", key)
    world.bind("amq.fanout", "q")
    assert [binding.key for binding in world.table.unbind_all("q", False)] == ["a", "b.*", ""]
    assert world.reached("amq.topic", "a") == ["other"]
    assert world.reached("amq.fanout") == []
    assert world.table.unbind_all("q", False) == []


def test_deleting_an_exchange_returns_the_bindings_from_it_and_to_it(world):
    world.declare("x", "topic")
    world.bind("x", "q", "a")
    world.chain("amq.direct", "x", "in")
    world.chain("x", "amq.fanout", "out")
    world.chain("x", "x", "self")
    assert {(b.source, b.destination) for b in world.table.delete("x")} == {
        ("x", "q"),
        ("amq.direct", "x"),
        ("x", "amq.fanout"),
        ("x", "x"),
    }
    assert world.table.find("x") is None
    assert world.table.bindings_of("q") == world.table.bindings_of("amq.fanout", True) == world.table.bindings_of("x", True) == []
    assert world.reached("amq.direct", "in") == []


def test_predeclared_exchange_can_not_be_deleted(world):
    world.bind("amq.topic", "q", "a")
    with pytest.raises(AccessRefused, match=r"amq\.topic"):
        world.table.delete("amq.topic")
    assert world.reached("amq.topic", "a") == ["q"]


def test_auto_delete_exchange_is_spent_when_its_last_binding_has_gone(world):
    world.declare("x", "fanout", auto_delete=True)
    world.declare("stays", "fanout")
    world.bind("x", "q")
    world.chain("x", "stays")
    assert not world.table.is_spent("x")
    world.table.unbind_all("q", False)
    assert not world.table.is_spent("x")
    world.table.delete("stays")
    assert world.table.is_spent("x")
    world.table.delete("x")
    assert not world.table.is_spent("x")
    assert not world.table.is_spent("amq.fanout")


# -- resolving -----------------------------------------------------------------


def test_default_exchange_reaches_the_queue_that_the_key_names(world):
    world.queue("q")
    assert world.options("", "q") == {"q": DEFAULT_OPTIONS}
    assert world.reached("", "nobody") == []


def test_bindings_between_exchanges_are_followed_with_the_key(world):
    world.declare("europe", "topic")
    world.declare("all", "fanout")
    world.chain("amq.topic", "europe", "eu.#")
    world.chain("europe", "all", "*.de.#")
    world.bind("europe", "paris", "eu.fr.*")
    world.bind("all", "archive")
    assert world.reached("amq.topic", "eu.fr.x") == ["paris"]
    assert world.reached("amq.topic", "eu.de.x") == ["archive"]
    assert world.reached("amq.topic", "us.de") == []


def test_cycles_are_visited_once(world):
    for name in ("a", "b"):
        world.declare(name, "fanout")
        world.bind(name, f"q{name}")
    world.chain("a", "b")
    world.chain("b", "a")
    world.chain("a", "a")
    assert world.reached("a") == ["qa", "qb"]
    assert world.reached("b") == ["qb", "qa"]


def test_queue_that_is_reached_by_several_ways_is_there_once_with_merged_options(world):
    world.declare("x", "fanout")
    world.chain("amq.topic", "x", "#", options=BindingOptions(qos=0))
    world.bind("amq.topic", "q", "a.*", options=BindingOptions(qos=0, subscription_ids=(1,)))
    world.bind("amq.topic", "q", "a.#", options=BindingOptions(qos=0, subscription_ids=(3,)))
    world.bind("x", "q", options=BindingOptions(qos=1, subscription_ids=(2,)))
    (options,) = world.options("amq.topic", "a.b").values()
    assert options.qos == 1
    assert sorted(options.subscription_ids) == [1, 2, 3]


def test_long_chains_are_followed_without_recursion(world):
    for number in range(3000):
        world.declare(f"x{number}", "fanout")
        if number:
            world.chain(f"x{number - 1}", f"x{number}")
    world.bind("x2999", "q")
    assert world.reached("x0") == ["q"]


def test_alternate_gets_what_finds_nothing_and_nothing_else(world):
    world.declare("x", "direct", alternate="lost")
    world.declare("lost", "fanout")
    world.bind("lost", "found")
    world.bind("x", "q", "k")
    assert world.reached("x", "k") == ["q"]
    assert world.reached("x", "other") == ["found"]


def test_alternates_are_followed_in_turn_and_may_form_a_cycle(world):
    world.declare("x", alternate="y")
    world.declare("y", alternate="z")
    world.declare("z", alternate="x")
    world.bind("z", "q", "k")
    assert world.reached("x", "k") == ["q"]
    assert world.reached("x", "other") == []


def test_alternate_of_an_exchange_behind_a_binding_is_used(world):
    world.declare("x", alternate="amq.fanout")
    world.chain("amq.topic", "x", "#")
    world.bind("amq.fanout", "found")
    world.bind("amq.topic", "q", "a")
    assert world.reached("amq.topic", "a") == ["q", "found"]


def test_binding_to_an_exchange_that_reaches_no_queue_counts_as_found(world):
    world.declare("x", "fanout", alternate="amq.fanout")
    world.declare("dead-end", "fanout")
    world.chain("x", "dead-end")
    world.bind("amq.fanout", "found")
    assert world.reached("x") == []


def test_alternate_that_does_not_exist_is_passed_over_until_it_does(world):
    world.declare("x", alternate="later")
    assert world.reached("x", "k") == []
    world.declare("later", "fanout")
    world.bind("later", "q")
    assert world.reached("x", "k") == ["q"]


def test_the_default_exchange_can_be_an_alternate(world):
    world.declare("x", alternate="")
    world.queue("q")
    assert world.reached("x", "q") == ["q"]


@pytest.mark.parametrize(
    ("exchange", "key", "cacheable"),
    [("", "q", True), ("amq.topic", "plain", True), ("amq.topic", "deep", False), ("amq.headers", "", False), ("x", "lost", False)],
)
def test_answer_is_cacheable_unless_a_headers_exchange_took_part(world, exchange, key, cacheable):
    world.declare("x", alternate="amq.headers")
    world.bind("amq.topic", "q", "plain")
    world.chain("amq.topic", "amq.headers", "deep")
    assert world.table.resolve(exchange, key, dict)[1] is cacheable


def test_headers_are_not_decoded_if_no_headers_exchange_takes_part(world):
    world.bind("amq.topic", "q", "k")
    found, _ = world.table.resolve("amq.topic", "k", lambda: pytest.fail("decoded"))
    assert len(found) == 1


# -- further keys --------------------------------------------------------------


def test_what_any_of_several_keys_reaches_is_reached_once(world):
    world.bind("amq.topic", "a", "a.*")
    world.bind("amq.topic", "both", "#")
    world.bind("amq.topic", "b", "b")
    world.bind("amq.direct", "c", "c")
    assert world.reached("amq.topic", "a.1", also=("b", "none")) == ["both", "a", "b"]
    assert world.reached("amq.direct", "none", also=("c",)) == ["c"]


def test_further_keys_name_queues_on_the_default_exchange(world):
    world.queue("a")
    world.queue("b")
    assert world.reached("", "a", also=("none", "b", "a")) == ["a", "b"]


def test_further_keys_go_along_bindings_between_exchanges(world):
    world.declare("x", "fanout")
    world.chain("x", "amq.topic")
    world.bind("amq.topic", "q", "b")
    assert world.reached("x", "a", also=("b",)) == ["q"]


def test_the_alternate_gets_what_none_of_the_keys_brings_anywhere(world):
    world.declare("x", "direct", alternate="amq.fanout")
    world.bind("x", "q", "a")
    world.bind("amq.fanout", "rest")
    assert world.reached("x", "b", also=("a",)) == ["q"]
    assert world.reached("x", "b", also=("c",)) == ["rest"]


def test_one_binding_of_a_consistent_hash_gets_a_message_whatever_its_further_keys(world):
    world.declare("x", "x-consistent-hash")
    for name in "abcd":
        world.bind("x", name, "1")
    assert world.reached("x", "1", also=tuple("23456789")) == world.reached("x", "1")


def test_options_of_bindings_that_different_keys_match_are_merged(world):
    world.bind("amq.topic", "q", "a", options=BindingOptions(qos=0, subscription_ids=(1,)))
    world.bind("amq.topic", "q", "b", options=BindingOptions(qos=1, subscription_ids=(2,)))
    found, _ = world.table.resolve("amq.topic", "a", dict, ("b",))
    assert list(found.values()) == [BindingOptions(qos=1, subscription_ids=(1, 2))]
