"""The WebSocket layer: upgrades, refusals, goodbyes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage

from gateway.errors import ProtocolViolation
from gateway.runtime.streams.websocket import MAX_HEAD_BYTES, WebSocket

PROTOCOLS = ("mqtt", "mqttv3.1")
HEAD = (
    b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


class Client:
    """wsproto's client on the other side of a layer."""

    def __init__(self, layer, *, target="/mqtt", protocols=("mqtt",), headers=()):
        self.layer = layer
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.request = self.ws.send(Request(host="h", target=target, subprotocols=list(protocols), extra_headers=list(headers)))

    def upgrade(self):
        self.layer.received(self.request)
        return self.events()

    def events(self):
        self.ws.receive_data(b"".join(self.layer.out))
        self.layer.out.clear()
        return list(self.ws.events())

    def send(self, event):
        return self.layer.received(self.ws.send(event))


@pytest.fixture
def client():
    client = Client(WebSocket(PROTOCOLS))
    client.upgrade()
    return client


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["mqtt"], "mqtt"), (["mqttv3.1"], "mqttv3.1"), (["x", "mqttv3.1", "mqtt"], "mqttv3.1"), (["x", "mqtt"], "mqtt")],
)
def test_mqtt_6_0_0_4_the_first_known_sub_protocol_is_agreed_on(offered, chosen):
    client = Client(WebSocket(PROTOCOLS), protocols=offered)
    (accepted,) = client.upgrade()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == chosen
    assert client.layer.settled


def test_no_extension_is_agreed_on():
    head = HEAD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    layer = WebSocket(PROTOCOLS)
    layer.received(head)
    assert b"xtensions" not in b"".join(layer.out)


def test_bytes_go_both_ways(client):
    assert client.send(BytesMessage(b"in")) == b"in"
    client.ws.receive_data(client.layer.sending(b"out"))
    (event,) = client.ws.events()
    assert bytes(event.data) == b"out"
    assert client.layer.sending(b"") == b""


def test_mqtt_6_0_0_2_the_upgrade_and_what_follows_may_be_cut_anywhere():
    client = Client(WebSocket(PROTOCOLS))
    client.upgrade()
    data = HEAD + client.ws.send(BytesMessage(b"hello")) + client.ws.send(BytesMessage(b" world"))
    for at in range(len(data)):
        layer = WebSocket(PROTOCOLS)
        assert layer.received(data[:at]) + layer.received(data[at:]) == b"hello world"
        assert b"".join(layer.out).startswith(b"HTTP/1.1 101 ")


def test_a_ping_is_answered_at_once(client):
    assert client.send(Ping(b"are you there")) == b""
    (pong,) = client.events()
    assert isinstance(pong, Pong)
    assert bytes(pong.payload) == b"are you there"


def test_a_ping_is_not_answered_to_a_peer_that_does_not_read():
    class Way:
        is_congested = True

    client = Client(WebSocket(PROTOCOLS, way=Way()))
    client.upgrade()
    client.send(Ping(b"1"))
    assert client.layer.out == []
    client.layer._way.is_congested = False
    client.send(Ping(b"2"))
    (pong,) = client.events()
    assert bytes(pong.payload) == b"2"


def test_mqtt_6_0_0_1_a_text_frame_closes_the_connection_with_1003(client):
    with pytest.raises(ProtocolViolation, match="text") as violation:
        client.send(TextMessage("hello"))
    assert violation.value.spec == "[MQTT-6.0.0-1]"
    (close,) = client.events()
    assert close.code == 1003
    assert client.layer.ended
    assert client.layer.goodbye() == client.layer.sending(b"x") == b""


def test_a_bad_frame_closes_with_1002(client):
    with pytest.raises(ProtocolViolation):
        client.layer.received(b"\x82\x01x")
    (close,) = client.events()
    assert close.code == 1002


def test_a_peers_close_is_answered_and_ends(client):
    assert client.send(CloseConnection(1001)) == b""
    (close,) = client.events()
    assert close.code == 1001
    assert client.layer.ended
    assert client.layer.goodbye() == client.layer.received(b"more") == b""


def test_the_brokers_goodbye_is_a_close_frame_once(client):
    client.ws.receive_data(client.layer.goodbye())
    (close,) = client.ws.events()
    assert close.code == 1000
    assert client.layer.goodbye() == b""


def test_nothing_is_sent_before_the_upgrade():
    layer = WebSocket(PROTOCOLS)
    assert layer.sending(b"x") == layer.goodbye() == b""


def refusal(layer, data):
    with pytest.raises(ProtocolViolation, match="no WebSocket upgrade"):
        layer.received(data)
    assert layer.ended
    head, _, body = b"".join(layer.out).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), head, body


def test_only_the_path_of_the_address_is_served():
    client = Client(WebSocket(PROTOCOLS, "/mqtt"), target="/other")
    status, _, body = refusal(client.layer, client.request)
    assert (status, body) == (404, b"The WebSocket is at /mqtt.\n")
    assert Client(WebSocket(PROTOCOLS, "/mqtt"), target="/mqtt?token=1").upgrade()
    assert Client(WebSocket(PROTOCOLS), target="/whatever").upgrade()


@pytest.mark.parametrize("offered", [(), ("amqp",), ("MQTT",)])
def test_mqtt_6_0_0_3_a_client_that_offers_no_known_sub_protocol_is_refused(offered):
    client = Client(WebSocket(PROTOCOLS), protocols=offered)
    status, _, body = refusal(client.layer, client.request)
    assert status == 400
    assert b"sub-protocols mqtt, mqttv3.1" in body


def test_pages_of_other_origins_are_refused_only_if_origins_are_listed():
    evil = [(b"Origin", b"https://evil.example")]
    assert Client(WebSocket(PROTOCOLS), headers=evil).upgrade()
    strict = WebSocket(PROTOCOLS, origins=("https://good.example",))
    client = Client(strict, headers=evil)
    assert refusal(strict, client.request)[0] == 403
    for headers in ([(b"Origin", b"https://good.example")], []):
        (accepted,) = Client(WebSocket(PROTOCOLS, origins=("https://good.example",)), headers=headers).upgrade()
        assert not isinstance(accepted, RejectConnection)


def test_plain_http_is_told_to_upgrade():
    status, head, body = refusal(WebSocket(PROTOCOLS), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert status == 426
    assert b"\r\nUpgrade: websocket\r\n" in head
    assert body.startswith(b"This is a WebSocket server")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"Host: h\r\n", b"", 400),
        (b"Upgrade: websocket", b"Upgrade: h2c", 400),
        (b"GET ", b"POST ", 400),
        (b"HTTP/1.1", b"HTTP/9", 400),
        (b"Host: h", b"Host: \xff\xfe", 400),
        (b"Host: h", b"Ho st: h", 400),
        (b"/mqtt", b"/\xff", 400),
    ],
)
def test_a_request_that_is_no_upgrade_gets_a_small_answer(old, new, status):
    assert refusal(WebSocket(PROTOCOLS), HEAD.replace(old, new))[0] == status


def test_a_request_without_an_end_is_cut_off():
    layer = WebSocket(PROTOCOLS)
    layer.received(HEAD[:-2] + b"X: ")
    for _ in range(16):
        layer.received(b"x" * 1000)
    with pytest.raises(ProtocolViolation):
        layer.received(b"x" * 1000)
    assert b"".join(layer.out).startswith(b"HTTP/1.1 431 ")
    assert refusal(WebSocket(PROTOCOLS), HEAD[:-2] + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")[0] == 431


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: HEAD[:-4] + tail + b"\r\n\r\n" + tail))
def test_any_request_is_taken_or_refused(data):
    layer = WebSocket(PROTOCOLS)
    try:
        layer.received(data)
    except ProtocolViolation:
        assert layer.out
