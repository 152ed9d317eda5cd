"""What a new subscription is owed, in small pieces."""

from __future__ import annotations

from gateway.api import Address, Message
from gateway_mqtt.retained import RETAIN, RetainedQueue


class FakeChannel:
    """Has three last values under every pattern; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def retained(self, exchange, pattern, *, mqtt=False):
        assert (exchange, mqtt) == ("amq.topic", True)
        self.asked.append(pattern)
        for n in range(3):
            yield Message(Address("/", exchange, f"{pattern}.{n}"), b"", n % 2 == 0)


def drain(queue):
    sent = []
    while (first := queue.first()) is not None:
        sent.append((first[0].routing_key, *first[1:]))
        queue.sent()
    return sent


def test_patterns_are_looked_up_one_after_the_other_as_they_are_sent():
    channel = FakeChannel()
    queue = RetainedQueue(channel)
    queue.want("a", 1)
    queue.want("b", 0)
    assert queue.first() is not None
    assert channel.asked == ["a"]
    assert drain(queue) == [
        (f"{key}.{n}", granted * (n % 2 == 0), RETAIN) for key, granted in (("a", 1), ("b", 0)) for n in range(3)
    ]


def test_what_is_unsubscribed_before_it_was_looked_up_is_not_sent():
    channel = FakeChannel()
    queue = RetainedQueue(channel)
    for pattern in ("a", "b", "c"):
        queue.want(pattern, 0)
    queue.first()
    queue.unwant("b")
    queue.unwant("never")
    assert [key for key, *_ in drain(queue)] == [f"{pattern}.{n}" for pattern in "ac" for n in range(3)]


def test_a_pattern_wanted_again_and_again_is_held_once():
    queue = RetainedQueue(FakeChannel())
    for _ in range(100):
        queue.want("a", 1)
    assert len(drain(queue)) == 3


def test_so_many_live_messages_may_follow_and_no_more_however_many_retained_ones_wait():
    queue = RetainedQueue(FakeChannel())
    queue.want("a", 0)
    queue.first()
    live = [Message(Address("/", "amq.topic", f"live.{n}"), b"") for n in range(3)]
    assert [queue.follow(message, 2) for message in live] == [True, True, False]
    assert drain(queue)[3:] == [("live.0", 0, 0), ("live.1", 0, 0)]
    assert queue.follow(live[2], 2)
