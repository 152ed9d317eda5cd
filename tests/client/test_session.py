"""What does the client's half of TGP/1 say, and what does it keep, when connections come and go?"""

import pytest

from gateway.client import ConsumerCancelled, on_trio
from gateway.client.deliveries import Subscription
from gateway.client.replies import Publishing
from gateway.client.session import Session, State
from gateway.client.wire import Command, decode, encode


class Talk:
    """A session, and the gateway that a test plays."""

    def __init__(self, make_consumer=Subscription):
        self.said = []
        self.session = Session(lambda header, _body: self.said.append(decode(header)), {}, Publishing, make_consumer)

    def hears(self, *fields, body=None):
        self.session.receive(encode(fields), body)

    def ready(self):
        """Let it in; return what it says from then on."""
        self.session.greet()
        (hello,) = self.heard()
        assert hello[0] == Command.HELLO
        self.hears(Command.READY, hello[1], 1, {"session": "s", "last_seq": 0})
        return self.heard()

    def heard(self):
        said, self.said = self.said, []
        return said


@pytest.mark.parametrize("make", [Subscription, lambda *values: on_trio.Consumer(None, *values)], ids=["sync", "trio"])
@pytest.mark.parametrize("connected_before", [False, True])
@pytest.mark.parametrize("no_ack", [False, True])
def test_a_consumer_that_was_given_up_without_a_connection_is_not_begun_on_the_next_one(make, connected_before, no_ack):
    talk = Talk(make)
    if connected_before:
        talk.ready()
        talk.session.lost()
    consumer, begun = talk.session.consume("jobs", 10, {"no_ack": no_ack})
    ended = talk.session.cancel(consumer)
    assert talk.ready() == []
    assert talk.session.state is State.READY
    assert (begun.done, ended.done, type(consumer.error)) == (True, True, ConsumerCancelled)


def test_a_consumer_that_was_not_given_up_is_begun_on_the_next_connection_once():
    talk = Talk()
    consumer, _ = talk.session.consume("jobs", 10, {})
    other, _ = talk.session.consume("jobs", 10, {})
    talk.session.cancel(other)
    assert [said[0::3] for said in talk.ready()] == [[Command.CONSUME, consumer.tag]]


def test_nothing_is_kept_of_cancelled_consumers_that_settle_nothing():
    talk = Talk()
    talk.ready()
    for _ in range(10):
        consumer, _ = talk.session.consume("jobs", 10, {"no_ack": True})
        talk.hears(Command.OK, talk.heard()[-1][1], {})
        talk.session.cancel(consumer)
        talk.hears(Command.DELIVER, consumer.tag, 1, False, "", "jobs", None, body=b"late")
        (cancel,) = talk.heard()
        talk.hears(Command.OK, cancel[1], {})
    assert talk.session._settled_tags == set()
