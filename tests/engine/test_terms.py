"""The settings of a queue are its own and its policies'."""

from __future__ import annotations

import pytest

from gateway.engine.definitions.policy import Policy
from gateway.engine.queues.terms import CHOICES, LIMITS, PLAIN, Terms
from gateway.errors import MessageRefused, PreconditionFailed
from gateway.model.declare import NEVER, Overflow, QueueSpec, Retry
from tests.engine.support import Bench


@pytest.fixture
def bench():
    return Bench()


def test_queues_with_nothing_special_share_one_object():
    assert Terms.of(QueueSpec("q", durable=False, max_priority=3)) is PLAIN
    assert Terms.of(QueueSpec("q"), {}, None) is PLAIN
    assert Terms.of(QueueSpec("q"), {"max_length": 0, "overflow": Overflow.DROP_HEAD}) is PLAIN


def test_plain_terms_are_the_defaults_of_a_queue():
    for name in (*LIMITS, *CHOICES):
        assert getattr(PLAIN, name) == getattr(QueueSpec("q"), name)


@pytest.mark.parametrize(("name", "unlimited"), LIMITS.items())
@pytest.mark.parametrize(
    ("own", "policy", "operator", "lowest"),
    [
        (5, 3, None, 3),
        (3, 5, None, 3),
        (None, 5, None, 5),
        (5, None, 3, 3),
        (None, 5, 7, 5),
        (None, None, 7, 7),
        (None, None, None, None),
    ],
)
def test_of_a_limit_the_lowest_holds_and_no_limit_is_no_number(name, unlimited, own, policy, operator, lowest):
    spec = QueueSpec("q") if own is None else QueueSpec("q", **{name: own})
    terms = Terms.of(spec, {name: unlimited if policy is None else policy}, {} if operator is None else {name: operator})
    assert getattr(terms, name) == (unlimited if lowest is None else lowest)


def test_a_time_to_live_of_0_is_the_lowest():
    assert Terms.of(QueueSpec("q", message_ttl_ms=10), {"message_ttl_ms": 0}).message_ttl_ms == 0
    assert Terms.of(QueueSpec("q", message_ttl_ms=0), {"message_ttl_ms": NEVER}).message_ttl_ms == 0


def test_of_the_rest_the_queues_own_goes_before_the_policys_and_operators_have_no_say():
    spec = QueueSpec("q", dead_letter_exchange="own")
    retry = Retry(1)
    policy = {
        "dead_letter_exchange": "policy",
        "dead_letter_routing_key": "key",
        "overflow": Overflow.REJECT_PUBLISH,
        "retry": retry,
    }
    terms = Terms.of(spec, policy, {"overflow": Overflow.END_QUEUE, "dead_letter_exchange": "operator"})
    assert terms.dead_letter_exchange == "own"
    assert terms.dead_letter_routing_key == "key"
    assert terms.overflow is Overflow.REJECT_PUBLISH
    assert terms.retry is retry


def test_a_policy_holds_for_queues_that_are_declared_after_it(bench):
    bench.engine.policies.set("/", Policy("p", "^q", {"max-length": 2}))
    bench.queue("q")
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    assert bench.bodies() == [b"2", b"3"]


def test_a_lower_limit_is_enforced_at_once(bench):
    bench.queue("q")
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    bench.engine.policies.set("/", Policy("p", "^q", {"max-length": 1}))
    assert bench.bodies() == [b"3"]
    assert bench.events.drops == [("q", "maxlen", 2)]
    bench.engine.policies.delete("/", "p")
    bench.publish(b"4")
    assert bench.bodies() == [b"3", b"4"]


def test_a_queue_that_refuses_by_a_policy_refuses_on_routes_that_were_used_before(bench):
    bench.queue("q")
    assert bench.publish(b"1") is None
    bench.engine.policies.set("/", Policy("p", "^q", {"max-length": 1, "overflow": "reject-publish"}))
    assert isinstance(bench.publish(b"2"), MessageRefused)
    bench.engine.policies.delete("/", "p")
    assert bench.publish(b"3") is None


def test_a_time_to_live_holds_for_messages_from_then_on(bench):
    bench.engine.advance(1000)
    bench.queue("q")
    bench.publish(b"old")
    bench.engine.policies.set("/", Policy("p", "^q", {"message-ttl": 10}))
    bench.publish(b"new")
    bench.engine.advance(5000)
    assert bench.bodies() == [b"old", b"new"]
    _, sink = bench.consume()
    assert sink.bodies == [b"old"]
    assert bench.events.drops == [("q", "expired", 1)]


def test_a_queue_expires_by_a_policy_counted_from_when_it_came(bench):
    bench.engine.advance(1000)
    bench.queue("q")
    bench.engine.advance(2000)
    bench.engine.policies.set("/", Policy("p", "^q", {"expires": 500}))
    bench.engine.advance(2499)
    assert "q" in bench.engine.vhost("/").queues
    bench.engine.advance(2500)
    assert "q" not in bench.engine.vhost("/").queues


def test_another_declaration_differs_if_any_setting_does(bench):
    bench.queue("q", message_ttl_ms=5)
    bench.queue("q", message_ttl_ms=5)
    with pytest.raises(PreconditionFailed, match="message_ttl_ms"):
        bench.queue("q", message_ttl_ms=6)
    with pytest.raises(PreconditionFailed, match="max_priority"):
        bench.queue("q", message_ttl_ms=5, max_priority=1)
