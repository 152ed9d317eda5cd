"""Layers on layers: what is spent leaves, what a layer says goes through those below."""

from __future__ import annotations

import pytest

from gateway.errors import ProtocolViolation
from gateway.runtime.streams.sniff import Sniff, Undecided
from gateway.runtime.streams.stack import Stack


class Shout:
    """A layer that adds a letter going down and takes it off coming up; `hello` is its handshake."""

    spent = False
    successor = None
    certificate_subject = None

    def __init__(self, letter, transport=""):
        self.letter = letter.encode()
        self.transport = transport
        self.out = []
        self.ended = False
        self.settled = False

    def received(self, data):
        if b"bad" in data:
            self.out.append(b"alert")
            raise ProtocolViolation("bad", "SPEC")
        if not self.settled:
            self.settled = True
            self.out.append(b"hello")
        if b"bye" in data:
            self.ended = True
        return data.replace(self.letter, b"")

    def sending(self, data):
        return self.letter + data

    def goodbye(self):
        return b"bye"


class Changes(list):
    def __call__(self, stack):
        self.append((len(stack.parts), stack.settled))


def test_bytes_go_through_every_layer_in_turn():
    stack = Stack([Shout("a", "tls"), Shout("b", "wss")], "tcp", Changes())
    assert stack.received(b"abx") == b"x"
    assert stack.sending(b"y") == b"aby"
    assert stack.sending(b"") == b""


def test_what_a_layer_says_itself_goes_through_those_below():
    stack = Stack([Shout("a"), Shout("b")], "tcp", Changes())
    stack.received(b"x")
    assert b"".join(stack.out) == b"hello" + b"ahello"


def test_goodbyes_are_said_from_above():
    assert Stack([Shout("a"), Shout("b")], "tcp", Changes()).goodbye() == b"abye" + b"bye"


def test_an_alert_of_a_layer_that_refuses_is_sent():
    stack = Stack([Shout("a"), Shout("b")], "tcp", Changes())
    stack.parts[0].settled = stack.parts[1].settled = True
    stack.parts[0].received = lambda data: data
    with pytest.raises(ProtocolViolation):
        stack.received(b"bad")
    assert b"".join(stack.out) == b"aalert"


def test_it_ends_when_one_of_them_does_and_is_named_after_the_uppermost():
    stack = Stack([Shout("a", "tls"), Shout("b")], "tcp", Changes())
    assert (stack.ended, stack.transport, stack.certificate_subject) == (False, "tls", None)
    stack.parts[0].certificate_subject = "device"
    assert stack.received(b"bye.") == b"ye."
    assert (stack.ended, stack.certificate_subject) == (True, "device")
    assert Stack([Shout("a")], "unix", Changes()).transport == "unix"


def test_it_is_told_when_the_last_handshake_is_done():
    changes = Changes()
    stack = Stack([Shout("a"), Shout("b")], "tcp", changes)
    stack.parts[0].received = lambda _: b""
    stack.received(b"x")
    assert changes == []
    del stack.parts[0].received
    stack.received(b"x")
    stack.received(b"x")
    assert changes == [(2, True)]


def test_with_nothing_the_layer_that_is_awaited_goes_on():
    changes = Changes()
    stack = Stack([Shout("a"), Shout("b")], "tcp", changes)
    stack.parts[0].settled = True
    assert stack.received(b"") == b""
    assert b"".join(stack.out) == b"ahello"
    assert changes == [(2, True)]
    assert stack.received(b"") == b""
    assert b"".join(stack.out) == b"ahello"


@pytest.mark.parametrize("data", [b"\x10\x0c\x00\x04MQTT", b"GET", b"GOT /", b"G", b"GETX", b"get / "])
def test_what_is_no_http_request_goes_up_as_it_came(data):
    for at in range(len(data) + 1):
        changes = Changes()
        stack = Stack([Sniff(lambda: Shout("w"))], "tcp", changes)
        came = stack.received(data[:at]) + stack.received(data[at:]) + stack.received(b"....")
        assert came == data + b"...."
        assert changes == [(0, True)]


def test_what_is_one_gets_its_layer_cut_anywhere():
    data = b"GET /wxyz"
    for at in range(len(data) + 1):
        changes = Changes()
        stack = Stack([Shout("t"), Sniff(lambda: Shout("w", "ws"))], "tcp", changes)
        assert stack.received(data[:at]) + stack.received(data[at:]) == b"GET /xyz"
        assert stack.transport == "ws"
        assert len(stack.parts) == 2
        assert changes[-1] == (2, True)


def test_a_front_end_may_speak_before_anything_came():
    stack = Stack([Sniff(lambda: Shout("w"))], "tcp", Changes())
    assert stack.settled
    assert stack.sending(b"welcome") == b"welcome"
    assert stack.goodbye() == b""


class Way:
    layer = None


@pytest.mark.parametrize("data", [b"\x10\x0c\x00\x04MQTT", b"g"])
def test_a_layer_that_only_waits_for_a_g_leaves_at_the_first_byte(data):
    way = Way()
    way.layer = layer = Undecided(way, None)
    assert layer.received(b"") == b""
    assert layer.sending(b"welcome") + layer.goodbye() == b"welcome"
    assert way.layer is layer
    assert layer.received(data) == data
    assert way.layer is None
    assert layer.out == []
    assert not layer.ended


def test_at_a_g_a_stack_takes_its_place_and_what_it_says_is_sent():
    way = Way()
    changes = Changes()
    way.layer = layer = Undecided(way, lambda _: Stack([Sniff(lambda: Shout("w", "ws"))], "tcp", changes))
    assert layer.received(b"GE") == b""
    assert not layer.ended
    stack = way.layer
    assert isinstance(stack, Stack)
    assert stack.received(b"T /w") == b"GET /"
    assert stack.out == layer.out == [b"hello"]
    stack.received(b"bye")
    assert layer.ended
    assert changes == [(1, True)]
