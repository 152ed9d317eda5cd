"""Is a gateway asked before it is given up, however long the client itself stood still?"""

import pytest

from gateway.client.pulse import Pulse
from gateway.client.session import State

LONG_S = 3_600.0


class Session:
    def __init__(self):
        self.ready = {"heartbeat_ms": 1_000}
        self.state = State.READY
        self.did = []

    def ping(self):
        self.did.append("ping")

    def lost(self):
        self.did.append("lost")


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def pulse(session):
    return Pulse(session, 5_000, 0.0)


def test_silence_is_asked_about_after_a_heartbeat_and_death_after_two_more(session, pulse):
    assert pulse.rest_s(0.0) == 1.0
    pulse.check(0.9, broken=False)
    assert session.did == []
    pulse.check(1.0, broken=False)
    assert session.did == ["ping"]
    assert pulse.rest_s(1.5) == 1.5
    pulse.check(2.9, broken=False)
    assert session.did == ["ping"], "it is asked once"
    pulse.check(3.0, broken=False)
    assert session.did == ["ping", "lost"]


def test_a_client_that_stood_still_asks_and_waits_for_the_answer(session, pulse):
    assert pulse.rest_s(LONG_S) == 0.0
    pulse.check(LONG_S, broken=False)
    assert session.did == ["ping"]
    assert pulse.rest_s(LONG_S) == 2.0
    pulse.check(LONG_S + 1.9, broken=False)
    assert session.did == ["ping"]
    pulse.heard(LONG_S + 1.9)
    assert pulse.rest_s(LONG_S + 1.9) == 1.0
    pulse.check(LONG_S + 2.8, broken=False)
    assert session.did == ["ping"]


def test_a_connection_that_is_known_to_be_gone_is_not_asked(session, pulse):
    pulse.check(0.1, broken=True)
    assert session.did == ["lost"]
