"""What if a client, or chance, chooses the worst moment?"""

from __future__ import annotations

from gateway_mqtt.packets import MAX_IDENTIFIER
from gateway_mqtt.session import Session, Sessions


class Sent:
    def __init__(self, position):
        self.position = position


def test_identifiers_of_what_vanished_while_its_client_was_away_do_not_run_out():
    sessions = Sessions()
    session = Session("/", "p", clean=False)
    sessions.enter(session, 0, present=False)
    position = 0
    for connection in range(1, 80):  # each time what was in flight has expired when the client is back
        for _ in range(1_000):
            position += 1
            assert len(session.inflight) < MAX_IDENTIFIER, "the search for a free identifier would never end"
            last = session.identify(Sent(position))
        sessions.leave(session, connection - 1, lambda _: True)
        session = Session("/", "p", clean=False)
        sessions.enter(session, connection, present=True)
    assert len(session.inflight) <= MAX_IDENTIFIER // 2
    assert session.identify_again(Sent(position)) == last, "what was sent last is remembered"
