"""Does the simulation find a fault of the MQTT front-end that somebody has planted?"""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.packets import Disconnect
from gateway_mqtt.inbound.exactly_once import Arrivals
from gateway_mqtt.outbound.exactly_once import RELEASING, SENT, ExactlyOnce
from gateway_mqtt.outbound.sink import Outbound
from gateway_mqtt.session import Session
from gateway_mqtt.shared.member import Seat
from gateway_mqtt.store import SessionStore
from tests.simulation.planted import assert_found

pytestmark = [pytest.mark.slow, pytest.mark.interpreted]


def test_a_pubrec_before_the_commit(monkeypatch):
    honest = Arrivals.publish

    def early(arrivals, route, message, packet_id, *, retain):
        honest(arrivals, route, message, packet_id, retain=retain)
        arrivals._send([arrivals._answers.packet(5, packet_id, 0)])

    monkeypatch.setattr(Arrivals, "publish", early)
    assert_found("is confirmed, but neither on disk", having="m0")


def test_an_identifier_that_came_in_and_is_not_journaled(monkeypatch):
    monkeypatch.setattr(SessionStore, "received", lambda store, packet_id: store.kept.incoming.add(packet_id))
    assert_found(having="m0")


def test_an_identifier_that_goes_out_and_is_not_journaled(monkeypatch):
    monkeypatch.setattr(SessionStore, "sending", lambda store, packet_id, position: None)
    assert_found(having="m0")


def test_a_pubrel_before_its_release_is_on_disk(monkeypatch):
    honest = ExactlyOnce._owe

    def hasty(two, shake):
        if shake.stage == RELEASING and two._open:
            two._send_release(shake)
        else:
            honest(two, shake)

    monkeypatch.setattr(ExactlyOnce, "_owe", hasty)
    assert_found(having="m0")


def test_a_message_of_qos_2_that_is_sent_before_its_identifier_is_on_disk(monkeypatch):
    honest = ExactlyOnce._owe

    def hasty(two, shake):
        if shake.stage != RELEASING and two._open:
            two._store.sending(shake.packet_id, shake.position)
            shake.stage = SENT
            two._wire.transmit(shake, 0)
        else:
            honest(two, shake)

    monkeypatch.setattr(ExactlyOnce, "_owe", hasty)
    assert_found(having="m0")


def test_identifiers_of_qos_1_that_are_forgotten_between_connections(monkeypatch):
    monkeypatch.setattr(Session, "in_flight", lambda session: iter(()))
    assert_found("again under", "twice without the redelivered flag", having="m0")


def test_a_window_of_the_client_that_is_not_kept(monkeypatch):
    monkeypatch.setattr(Outbound, "_has_room", lambda out: True)
    assert_found("are allowed", having="m0")


def test_a_will_that_is_lost_with_the_broker(monkeypatch):
    from gateway_mqtt import expiry

    honest = expiry.left

    def forgetful(record, now_ms):
        return honest(expiry.without_will(record), now_ms)

    monkeypatch.setattr(expiry, "left", forgetful)
    assert_found("has not come", having="m0")


def test_a_will_that_comes_though_its_client_said_goodbye(monkeypatch):
    from gateway_mqtt.link import Link

    honest = Link.disconnect

    def spiteful(link, packet):
        honest(link, Disconnect(4, packet.properties))

    monkeypatch.setattr(Link, "disconnect", spiteful)
    assert_found("was taken back", having="m0", first=200)


def test_a_shared_message_that_goes_to_two_members(monkeypatch):
    honest = Seat.deliver
    seats = {}

    def generous(seat, delivery):
        honest(seat, delivery)
        others = seats.setdefault(seat.pattern, {})
        others[seat] = None
        for other in others:
            if other is not seat and other.consumer is not None and not other._member._lasts:
                other._member._out.deliver_shared(delivery, other.wanted)
                break

    monkeypatch.setattr(Seat, "deliver", generous)
    assert_found("of a shared subscription", having="m1", first=100)


def test_a_session_that_is_called_present_though_it_is_new(monkeypatch):
    from gateway_mqtt.entering import Entering

    honest = Entering._accept

    def proud(entering, *arguments):
        entering._present = True
        honest(entering, *arguments)

    monkeypatch.setattr(Entering, "_accept", proud)
    assert_found("its session is there, which it is not", having="m0")
