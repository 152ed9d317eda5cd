"""Do the keys of peers lead where they should, at endpoints of both spellings?"""

import pytest
from pydantic import ValidationError

from gateway_zeromq.endpoints.frames import WrongKey
from gateway_zeromq.endpoints.routes import Routes
from gateway_zeromq.settings.pull import PullEndpoint


class Channel:
    def __init__(self):
        self.asked = []

    def route(self, exchange, key):
        self.asked.append((exchange, key))
        return Way(exchange, key)


class Way:
    def __init__(self, exchange, key):
        self.exchange, self.routing_key = exchange, key

    @property
    def address(self):
        return self


def endpoint(**settings):
    return PullEndpoint(socket="PULL", bind="tcp://127.0.0.1:1", **settings)


@pytest.mark.parametrize(("syntax", "key", "inner"), [("amqp", b"plant.3", "plant.3"), ("mqtt", b"plant/3.5", "plant.3/5")])
def test_a_key_is_looked_up_once(syntax, key, inner):
    channel = Channel()
    routes = Routes(channel, endpoint(frames="key,body", key_syntax=syntax))
    assert routes.of(key) is routes.of(key)
    assert channel.asked == [("amq.topic", ""), ("amq.topic", inner)]


def test_without_a_key_it_is_the_endpoints_own():
    routes = Routes(Channel(), endpoint(routing_key="plant/3", key_syntax="mqtt"))
    assert routes.of(None) is routes.fixed
    assert routes.fixed.routing_key == "plant.3"


@pytest.mark.parametrize("key", [b"x" * 65_536, b".".join([b"x"] * 257)])
def test_a_key_that_can_not_be_is_refused(key):
    with pytest.raises(WrongKey, match="at most"):
        Routes(Channel(), endpoint(frames="key,body")).of(key)


@pytest.mark.parametrize(("syntax", "between"), [("amqp", "."), ("mqtt", "/")])
def test_the_endpoints_own_key_is_looked_at_before_anything_starts(syntax, between):
    assert endpoint(routing_key=between.join(["x"] * 256), key_syntax=syntax)
    with pytest.raises(ValidationError, match="more than 256 words"):
        endpoint(routing_key=between.join(["x"] * 257), key_syntax=syntax)
