"""Do policies give queues and exchanges the settings that they say, at once, and for good?"""

import json

import pytest

from gateway.engine.definitions.policy import KEYS, NAMESPACE, WITHOUT_MEANING, Policies, Policy, parse
from gateway.errors import JournalError, NotFound, NotSupported, Overloaded, PreconditionFailed, ResourceLocked
from gateway.model.arguments import queue_spec, unknown_queue_arguments
from gateway.model.declare import NEVER, Binding, ExchangeSpec, Overflow, QueueSpec, Retry
from gateway.model.exchange_arguments import exchange_spec, unknown_exchange_arguments
from gateway.model.message import Message
from gateway.model.properties import Properties, encode_properties
from gateway.model.records import StatePut

from .support import Bench


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def policies(bench):
    return bench.engine.policies


def terms(policies, name="q", **spec):
    return policies.terms("/", QueueSpec(name, **spec))


def live(bench, name="q"):
    return bench.engine.vhosts["/"].queues[name]


# -- which one holds ----------------------------------------------------------------


def test_a_pattern_is_searched_anywhere_in_the_name(policies):
    policies.set("/", Policy("p", "b.d", {"max-length": 5}))
    assert terms(policies, "abcde").max_length == 5
    assert terms(policies, "abde").max_length == 0


@pytest.mark.parametrize(
    ("pattern", "name", "matches"), [("^a", "ab", True), ("^b", "ab", False), ("a$", "ab", False), ("", "x", True)]
)
def test_anchors_anchor(policies, pattern, name, matches):
    policies.set("/", Policy("p", pattern, {"max-length": 5}))
    assert (terms(policies, name).max_length == 5) is matches


def test_the_highest_priority_holds_alone(policies):
    policies.set("/", Policy("low", "", {"max-length": 5, "message-ttl": 7}, priority=1))
    policies.set("/", Policy("high", "^q", {"max-length": 9}, priority=2))
    found = terms(policies)
    assert (found.max_length, found.message_ttl_ms) == (9, NEVER)
    assert terms(policies, "other").max_length == 5


def test_between_equals_the_name_that_sorts_first_holds(policies):
    for name in ("b", "a", "c"):
        policies.set("/", Policy(name, "", {"max-length": ord(name)}))
    assert terms(policies).max_length == ord("a")
    assert [policy.name for policy in policies.listed("/")] == ["a", "b", "c"]


def test_policies_of_another_vhost_mean_nothing_here(policies):
    policies.set("other", Policy("p", "", {"max-length": 5}))
    assert terms(policies).max_length == 0
    assert policies.listed("/") == []


def test_setting_again_replaces(policies):
    policies.set("/", Policy("p", "", {"max-length": 5}, priority=3))
    policies.set("/", Policy("p", "", {"max-length": 6}))
    assert [policy.definition for policy in policies.listed("/")] == [{"max-length": 6}]
    assert terms(policies).max_length == 6


@pytest.mark.parametrize(
    ("apply_to", "plain", "quorum"),
    [
        ("all", True, True),
        ("queues", True, True),
        ("classic_queues", True, False),
        ("quorum_queues", False, True),
        ("exchanges", False, False),
    ],
)
def test_apply_to_says_which_queues(policies, apply_to, plain, quorum):
    policies.set("/", Policy("p", "", {"max-length": 5}, apply_to))
    assert (terms(policies).max_length == 5) is plain
    assert (policies.terms("/", queue_spec("q", arguments={"x-queue-type": "quorum"})).max_length == 5) is quorum


# -- what it says -------------------------------------------------------------------


def test_every_key_reaches_the_terms(policies):
    definition = {
        "message-ttl": 1, "expires": 2, "max-length": 3, "max-length-bytes": 4, "overflow": "reject-publish",
        "dead-letter-exchange": "dlx", "dead-letter-routing-key": "k", "delivery-limit": 5, "consumer-timeout": 6,
        "retry-delay": 7, "retry-factor": 3, "retry-max-delay": 8, "retry-attempts": 9,
    }  # fmt: skip
    policies.set("/", Policy("p", "", definition))
    found = terms(policies)
    assert (found.message_ttl_ms, found.expires_ms, found.max_length, found.max_length_bytes) == (1, 2, 3, 4)
    assert (found.overflow, found.dead_letter_exchange, found.dead_letter_routing_key) == (Overflow.REJECT_PUBLISH, "dlx", "k")
    assert (found.delivery_limit, found.consumer_timeout_ms, found.retry) == (5, 6, Retry(7, 3.0, 8, 9))
    assert set(definition) == set(KEYS) - {"alternate-exchange"}


def test_the_queues_own_argument_goes_first_and_of_limits_the_lower_one(policies):
    policies.set("/", Policy("p", "", {"dead-letter-exchange": "policys", "max-length": 5, "message-ttl": 100}))
    found = terms(policies, dead_letter_exchange="own", max_length=9, message_ttl_ms=10)
    assert (found.dead_letter_exchange, found.max_length, found.message_ttl_ms) == ("own", 5, 10)


def test_an_operator_policy_caps_what_queue_and_policy_say(policies):
    policies.set("/", Policy("p", "", {"max-length": 50}))
    policies.set("/", Policy("cap", "", {"max-length": 5}, operator=True))
    assert terms(policies).max_length == 5
    assert terms(policies, max_length=3).max_length == 3
    policies.delete("/", "cap", operator=True)
    assert terms(policies).max_length == 50


def test_policy_and_operator_policy_of_one_name_are_two(policies):
    policies.set("/", Policy("p", "", {"max-length": 50}))
    policies.set("/", Policy("p", "", {"max-length": 5}, operator=True))
    assert [policy.operator for policy in policies.listed("/")] == [False, True]
    policies.delete("/", "p")
    assert terms(policies).max_length == 5


@pytest.mark.parametrize("key", [*sorted(WITHOUT_MEANING), "federation-upstream-set", "max-age"])
def test_what_rabbitmq_knows_and_means_nothing_here_is_kept_and_named(policies, key):
    policies.set("/", Policy("p", "", {key: "all", "max-length": 5}))
    (policy,) = policies.listed("/")
    assert policy.ignored == (key,)
    assert policy.definition == {key: "all", "max-length": 5}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"definition": {"max-lenght": 1}}, "'max-lenght' is no key of a policy; did you mean 'max-length'?"),
        ({"definition": {"x-max-length": 1}}, "did you mean 'max-length'"),
        ({"definition": {"max-priority": 1}}, "no key of a policy"),
        ({"definition": {}}, "at least one of"),
        ({"definition": {"max-length": -1}}, "'max-length': an integer"),
        ({"definition": {"overflow": "explode"}}, "drop-head"),
        ({"definition": {"retry-factor": 2}}, "'retry-delay'"),
        ({"definition": {"alternate-exchange": 1}}, "name of an exchange"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "[[:alpha:]]"}, "no regular expression"),
        ({"pattern": "a" * 1025}, "at most 1024 bytes"),
        ({"pattern": 1}, "pattern must be text"),
        ({"definition": []}, "definition must be an object"),
        ({"apply-to": "streams"}, "apply-to must be one of all, queues"),
        ({"priority": "high"}, "priority must be an integer"),
        ({"priority": True}, "priority must be an integer"),
        ({"colour": 1}, "'colour' is no field"),
    ],
)
def test_what_can_not_be_is_refused_in_words(values, words):
    with pytest.raises(PreconditionFailed) as refused:
        parse("p", {"pattern": "", "definition": {"max-length": 1}, **values})
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 256])
def test_a_name_that_can_not_be_kept_is_refused(name):
    with pytest.raises(PreconditionFailed, match="name of a policy"):
        Policy(name, "", {"max-length": 1})


@pytest.mark.parametrize("key", ["dead-letter-exchange", "overflow", "alternate-exchange", "retry-delay"])
def test_an_operator_policy_has_bounds_alone(key):
    with pytest.raises(PreconditionFailed, match="operator policy"):
        Policy("p", "", {key: "x"}, operator=True)


# -- live ---------------------------------------------------------------------------


def test_a_policy_holds_for_queues_that_are_there_and_for_those_that_come(bench, policies):
    bench.queue("before")
    policies.set("/", Policy("p", "", {"max-length": 2}))
    bench.queue("after")
    for name in ("before", "after"):
        for number in range(4):
            bench.publish(b"%d" % number, name)
        assert live(bench, name).ready_count == 2


def test_a_limit_that_sinks_drops_what_is_too_much_at_once(bench, policies):
    bench.queue()
    for number in range(5):
        bench.publish(b"%d" % number)
    policies.set("/", Policy("p", "", {"max-length": 2}))
    assert live(bench).ready_count == 2
    assert bench.consume()[1].bodies == [b"3", b"4"]
    policies.delete("/", "p")
    for number in range(5):
        bench.publish(b"%d" % number)
    assert live(bench).terms.max_length == 0


def test_queues_that_match_neither_before_nor_after_are_left_alone(bench, policies):
    bench.queue("q1")
    bench.queue("r1")
    untouched = live(bench, "r1").terms
    policies.set("/", Policy("p", "^q", {"max-length": 2}))
    policies.set("/", Policy("p", "1$", {"max-length": 3}))
    assert live(bench, "q1").terms.max_length == live(bench, "r1").terms.max_length == 3
    policies.set("/", Policy("p", "^q", {"max-length": 2}))
    assert (live(bench, "q1").terms.max_length, live(bench, "r1").terms.max_length) == (2, 0)
    assert untouched.max_length == 0


def test_an_exchange_gets_its_alternate_unless_it_has_one(bench, policies):
    definitions = bench.engine.definitions
    bench.queue("lost")
    bench.bind("amq.fanout", "lost", "")
    definitions.declare_exchange("/", ExchangeSpec("before"))
    definitions.declare_exchange("/", ExchangeSpec("own", alternate="amq.direct"))
    policies.set("/", Policy("p", "^(before|after|own)$", {"alternate-exchange": "amq.fanout"}, "exchanges"))
    definitions.declare_exchange("/", ExchangeSpec("after"))
    for exchange in ("before", "after", "own"):
        bench.publish(b"x", "nowhere", exchange)
    assert live(bench, "lost").ready_count == 2
    policies.delete("/", "p")
    bench.publish(b"x", "nowhere", "before")
    assert live(bench, "lost").ready_count == 2


def test_a_policy_is_no_part_of_what_declarations_are_compared_with(bench, policies):
    bench.queue(max_length=9)
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("x"))
    policies.set("/", Policy("p", "", {"max-length": 2, "alternate-exchange": "amq.fanout"}))
    bench.queue(max_length=9)
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("x"))


def test_deleting_what_is_not_there_is_told(policies):
    with pytest.raises(NotFound, match="no policy 'p' in vhost '/'"):
        policies.delete("/", "p")


# -- for good -----------------------------------------------------------------------


def kept(bench):
    return [record for record in bench.engine.batch.records if isinstance(record, StatePut) and record.namespace == NAMESPACE]


def test_what_is_recorded_gives_the_same_policies_to_another_engine(bench, policies):
    policies.set("/", Policy("p", "^q", {"max-length": 5}, "queues", 4))
    policies.set("v\0h", Policy("ü", "", {"max-length": 6}, operator=True))
    records = kept(bench)
    assert [record.key for record in records] == ["/\0policy\0p", "v\0h\0operator\0ü"]
    assert json.loads(records[0].value) == {"pattern": "^q", "apply-to": "queues", "priority": 4, "definition": {"max-length": 5}}
    other = Bench()
    other.queue("q1")
    for record in records:
        other.engine.replay(record)
    assert other.engine.policies.listed("/") == policies.listed("/")
    assert other.engine.policies.listed("v\0h") == policies.listed("v\0h")
    assert live(other, "q1").terms.max_length == 5
    assert not kept(other)


def test_what_is_deleted_is_recorded_as_gone(bench, policies):
    policies.set("/", Policy("p", "", {"max-length": 5}))
    policies.delete("/", "p")
    assert kept(bench)[-1] == StatePut(NAMESPACE, "/\0policy\0p", None)


def test_nothing_changes_while_the_journal_refuses(bench, policies):
    policies.set("/", Policy("p", "", {"max-length": 5}))
    recorded = len(kept(bench))
    bench.engine.refuse_durable("the disk is full")
    with pytest.raises(Overloaded):
        policies.set("/", Policy("p", "", {"max-length": 6}))
    with pytest.raises(Overloaded):
        policies.delete("/", "p")
    assert terms(policies).max_length == 5
    assert len(kept(bench)) == recorded


@pytest.mark.parametrize("value", [b"{", b'{"pattern": ""}', b'{"pattern": "", "definition": {"of-the-future": 1}}', b"\xff"])
def test_a_policy_that_can_not_be_understood_ends_the_start_and_is_named(bench, value):
    with pytest.raises(JournalError, match="'p'"):
        Policies(bench.engine).replay(StatePut(NAMESPACE, "/\0policy\0p", value))


# -- exchanges that need more than the key ------------------------------------------


def test_a_property_that_an_exchange_hashes_reaches_it(bench):
    spec = ExchangeSpec("h", "x-consistent-hash", arguments={"hash-property": "message_id"})
    bench.engine.definitions.declare_exchange("/", spec)
    for name in ("a", "b"):
        bench.queue(name)
        bench.engine.definitions.bind("/", Binding("h", name, "1"), None)
    route = bench.engine.vhost("/").route("h", "always the same")
    for number in range(100):
        wire = encode_properties(Properties(message_id=f"m{number % 50}"))
        bench.engine.publish(route, Message(route.address, b"%d" % (number % 50), True, "common", wire))
    counts = [live(bench, name).ready_count for name in ("a", "b")]
    assert sum(counts) == 100
    assert all(count % 2 == 0 and count > 20 for count in counts)


def test_publishing_to_an_internal_exchange_is_refused_in_rabbitmqs_words(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("x", internal=True))
    refused = bench.publish(b"x", "k", "x")
    assert (refused.code, str(refused)) == (403, "cannot publish to internal exchange 'x' in vhost '/'")


def test_an_exchange_argument_that_means_nothing_here_is_refused_unless_it_is_to_be_kept():
    with pytest.raises(NotSupported, match="x-unheard-of"):
        exchange_spec("x", arguments={"x-unheard-of": 1})


@pytest.mark.parametrize(
    ("there", "asked", "words"),
    [
        ({"durable": False}, {}, "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"),
        ({"auto_delete": True}, {}, "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'false' but current"),
        (
            {"arguments": {"x-max-length": 5, "x-message-ttl": 1}},
            {"arguments": {"x-max-length": 6, "x-message-ttl": 1}},
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '6' but current is '5'",
        ),
        (
            {"arguments": {"x-max-length": 5}},
            {},
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5'",
        ),
    ],
)
def test_a_queue_that_is_declared_otherwise_is_refused_and_names_what_differs(bench, there, asked, words):
    declare = bench.engine.definitions.declare_queue
    declare("/", queue_spec("q", **there), None)
    with pytest.raises(PreconditionFailed) as refused:
        declare("/", queue_spec("q", **asked), None)
    assert str(refused.value).startswith(words)
    assert refused.value.code == 406


def test_a_queue_that_is_declared_exclusive_though_it_is_not_is_locked(bench):
    bench.queue("q")
    with pytest.raises(ResourceLocked) as refused:
        bench.queue("q", exclusive=True)
    assert refused.value.code == 405


def test_what_makes_no_difference_here_may_differ_when_a_queue_is_declared_again(bench):
    declare = bench.engine.definitions.declare_queue
    declare("/", queue_spec("q", arguments={"x-queue-type": "quorum", "x-queue-mode": "lazy", "note": 1}), None)
    other = {"x-queue-type": "classic", "x-odd": True}
    assert declare("/", queue_spec("q", arguments=other, unknown="keep"), None).name == "q"
    assert bench["q"].spec.arguments["x-queue-type"] == "quorum"


def test_an_exclusive_queue_may_be_declared_again_as_durable_or_not(bench):
    owner = object()
    declare = bench.engine.definitions.declare_queue
    declare("/", QueueSpec("mine", durable=False, exclusive=True), owner)
    assert declare("/", QueueSpec("mine", durable=True, exclusive=True), owner).name == "mine"


def test_arguments_that_nobody_knows_are_kept_if_that_is_asked_for_and_can_be_told(bench):
    arguments = {"x-odd": 1, "x-max-length": 5, "x-ha-policy": "all", "odd": 2}
    assert queue_spec("q", arguments=arguments, unknown="keep").arguments == arguments
    assert unknown_queue_arguments(arguments) == ["x-odd"]
    with pytest.raises(NotSupported):
        queue_spec("q", arguments=arguments)
    odd = exchange_spec("x", arguments={"x-odd": 1, "alternate-exchange": "y", "odd": 2}, unknown="keep")
    assert unknown_exchange_arguments(odd.arguments) == ["x-odd"]
    bench.engine.definitions.declare_exchange("/", odd)
    assert bench.engine.vhost("/").table.get("x").spec.arguments == {"x-odd": 1, "odd": 2}
    with pytest.raises(NotSupported):
        queue_spec("q", arguments={"x-queue-type": "stream"}, unknown="keep")
