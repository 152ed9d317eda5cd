"""Every kind of address, with real sockets: who gets in, as whom, and over what."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from contextlib import asynccontextmanager

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, Request

from gateway.api import stream_address
from gateway.config import TlsSettings, Transport
from gateway.errors import ConfigError, ListenError
from gateway.runtime.streams.poller import HAS_EPOLL
from tests import certificates
from tests.runtime.support import HandJournal, Log, running

PROXIED = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 1883\r\n"
OPENED = []
LOCAL = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"


@pytest.fixture(params=[True, False] if HAS_EPOLL else [False], ids=lambda epoll: "epoll" if epoll else "tasks")
def epoll(request):
    return request.param


@pytest.fixture
def autojump_clock(autojump_clock):
    """Time passes only when the sockets, too, have been silent for a moment."""
    autojump_clock.autojump_threshold = 0.002
    return autojump_clock


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = certificates.make(tmp_path_factory.mktemp("tls"))
    files.issue_client("device 1")
    return files


def tls(files, **settings):
    return TlsSettings(certificate=files.certificate, key=files.key, **settings)


class Greeter:
    """A receiver that says of its connection what a front-end can know when the first bytes come, and then echoes."""

    def __init__(self, connection):
        self.connection = connection
        self.known = False
        connection.attach(self)

    def feed(self, data):
        connection = self.connection
        if not self.known:
            self.known = True
            host = connection.peer.rpartition(":")[0]
            said = f"{connection.transport} {host} {connection.is_loopback} {connection.certificate_subject} "
            data = said.encode() + data
        if not connection.out:
            connection.touch()
        connection.out.append(data)

    def ended(self, reason):
        pass


@asynccontextmanager
async def serving(*listen, transport=None, websocket=("mqtt",), epoll=HAS_EPOLL, **limits):
    async with running(HandJournal(), **limits) as broker, trio.open_nursery() as nursery:
        log = Log()
        gateway = broker.gateway("test", lambda line: None, log, transport=transport, epoll=epoll)

        async def serve(task_status):
            await gateway.serve_streams(
                listen, accept=Greeter, setting="frontend.test.listen", websocket=websocket, task_status=task_status
            )

        broker.addresses = await nursery.start(serve)
        broker.log_of_front_end = log
        try:
            with trio.fail_after(60):
                yield broker
        finally:
            nursery.cancel_scope.cancel()
            while OPENED:
                await trio.aclose_forcefully(OPENED.pop())


async def reach(text, context=None):
    """Return a stream to an address; it is closed with what is served."""
    address = stream_address(text)
    if address.scheme == "unix":
        stream = await trio.open_unix_socket(address.path)
    else:
        stream = await trio.open_tcp_stream("127.0.0.1", address.port)
    OPENED.append(stream)
    if address.is_encrypted:
        stream = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
    return stream


async def talk(stream, data):
    """Send; return the answer as far as it goes with what was sent; b"": the other side has closed."""
    await stream.send_all(data)
    answer = b""
    last = data[-4:]
    while not answer.endswith(last):
        piece = await stream.receive_some()
        if not piece:
            return b""
        answer += piece
    return answer


class WebSocketStream:
    """A stream over wsproto's client."""

    def __init__(self, stream):
        self.stream = stream
        self.ws = WSConnection(ConnectionType.CLIENT)

    async def upgrade(self, path):
        await self.stream.send_all(self.ws.send(Request(host="h", target=path, subprotocols=["mqtt"])))
        self.ws.receive_data(await self.stream.receive_some())
        return list(self.ws.events())

    async def send_all(self, data):
        await self.stream.send_all(self.ws.send(BytesMessage(data)))

    async def receive_some(self):
        while True:
            piece = await self.stream.receive_some()
            if not piece:
                return b""
            self.ws.receive_data(piece)
            data = b"".join(bytes(event.data) for event in self.ws.events() if isinstance(event, BytesMessage))
            if data:
                return data


async def websocket(text, context=None, path="/mqtt"):
    stream = WebSocketStream(await reach(text, context))
    await stream.upgrade(path)
    return stream


async def test_every_kind_of_address_is_announced_and_spoken(files, tmp_path, epoll):
    socket_file = tmp_path / "sock"
    listen = ("tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/mqtt", "wss://127.0.0.1:0", f"unix:{socket_file}")
    client = ssl.create_default_context(cafile=str(files.ca))
    async with serving(*listen, transport=Transport(tls(files)), epoll=epoll) as broker:
        tcp, encrypted, ws, wss, unix = broker.addresses
        assert unix == f"unix:{socket_file}"
        assert ws.endswith("/mqtt")
        assert await talk(await reach(tcp), b"hello") == b"tcp 127.0.0.1 True None hello"
        assert await talk(await reach(encrypted, client), b"hello") == b"tls 127.0.0.1 True None hello"
        assert await talk(await websocket(ws), b"hello") == b"ws 127.0.0.1 True None hello"
        assert await talk(await websocket(wss, client, "/any"), b"hello") == b"wss 127.0.0.1 True None hello"
        assert (await talk(await reach(unix), b"hello")).startswith(b"unix unix True None hello")
        assert await talk(await websocket(tcp), b"hello") == b"ws 127.0.0.1 True None hello"
        assert await talk(await websocket(encrypted, client), b"hello") == b"wss 127.0.0.1 True None hello"


async def test_large_messages_go_both_ways_over_all_layers(files, epoll):
    client = ssl.create_default_context(cafile=str(files.ca))
    async with serving("wss://127.0.0.1:0", transport=Transport(tls(files)), epoll=epoll) as broker:
        stream = await websocket(broker.addresses[0], client)
        data = os.urandom(300_000)
        assert (await talk(stream, data)).endswith(data[-1000:])
        assert await talk(stream, data) == data


async def test_the_common_name_of_a_verified_certificate_is_known(files):
    client = ssl.create_default_context(cafile=str(files.ca))
    client.load_cert_chain(files.client)
    transport = Transport(tls(files, client_ca=files.ca, client_certificate="required"))
    async with serving("tls://127.0.0.1:0", transport=transport) as broker:
        stream = await reach(broker.addresses[0], client)
        assert await talk(stream, b"hello") == b"tls 127.0.0.1 True device 1 hello"


async def test_failed_handshakes_are_counted_and_a_peers_are_logged_once(files):
    async with serving("tls://127.0.0.1:0", transport=Transport(tls(files))) as broker:
        address = broker.addresses[0].replace("tls", "tcp")
        for _ in range(3):
            stream = await reach(address)
            await stream.send_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
            while await stream.receive_some():
                pass
        assert broker.counters["tls_failures"] == 3
        assert broker.counters["violations"] == 0
        ((_, event, values),) = broker.log_of_front_end.lines
        assert event == "a TLS handshake failed"
        assert values["peer"].startswith("127.0.0.1:")


async def test_who_is_connected_does_not_wait_for_many_who_begin_to_speak_tls(files, epoll):
    client = ssl.create_default_context(cafile=str(files.ca))
    async with serving("tcp://127.0.0.1:0", "tls://127.0.0.1:0", transport=Transport(tls(files)), epoll=epoll) as broker:
        tcp, encrypted = broker.addresses
        stream = await reach(tcp)
        await talk(stream, b"first")
        strangers = [await reach(encrypted.replace("tls", "tcp")) for _ in range(50)]
        for stranger in strangers:
            outgoing = ssl.MemoryBIO()
            with pytest.raises(ssl.SSLWantReadError):
                client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
            await stranger.send_all(outgoing.read())
        answered = []
        async with trio.open_nursery() as nursery:

            async def answer(stranger):
                assert await stranger.receive_some()
                answered.append(stranger)

            for stranger in strangers:
                nursery.start_soon(answer, stranger)
            assert await talk(stream, b"hello") == b"hello"
            assert len(answered) < len(strangers)
        assert len(answered) == len(strangers)


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(tmp_path, autojump_clock):
    files = certificates.make(tmp_path)
    client = ssl.create_default_context(cafile=str(files.ca))
    async with serving("tls://127.0.0.1:0", transport=Transport(tls(files))) as broker:
        old = await reach(broker.addresses[0], client)
        files.issue("localhost", "second.example")
        with trio.move_on_after(5):
            await trio.sleep_forever()
        new = await reach(broker.addresses[0], client)
        assert ("DNS", "second.example") in new.getpeercert()["subjectAltName"]
        assert ("DNS", "second.example") not in old.getpeercert()["subjectAltName"]
        assert await talk(old, b"still") == b"tls 127.0.0.1 True None still"


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01", b"GET / HT"])
async def test_who_does_not_finish_a_handshake_in_time_is_closed(files, begin, autojump_clock):
    listen = ("ws://127.0.0.1:0",) if begin.startswith(b"G") else ("tls://127.0.0.1:0",)
    async with serving(*listen, transport=Transport(tls(files)), handshake_timeout_s=0.1) as broker:
        stream = await reach(broker.addresses[0].replace("tls", "tcp").replace("ws", "tcp"))
        await stream.send_all(begin) if begin else None
        assert await stream.receive_some() == b""
        assert broker.counters["handshake_timeouts"] == 1


async def test_who_has_finished_is_not(files, autojump_clock):
    client = ssl.create_default_context(cafile=str(files.ca))
    async with serving(
        "tls://127.0.0.1:0", "tcp://127.0.0.1:0", transport=Transport(tls(files)), handshake_timeout_s=0.1
    ) as broker:
        streams = [await reach(address, client) for address in broker.addresses]
        await trio.sleep(0.7)
        for stream in streams:
            assert (await talk(stream, b"hello")).endswith(b"hello")
        assert broker.counters["handshake_timeouts"] == 0


async def test_half_a_websocket_request_on_a_plain_port_is_not_waited_for(autojump_clock):
    async with serving("tcp://127.0.0.1:0", handshake_timeout_s=0.1) as broker:
        stream = await reach(broker.addresses[0])
        await stream.send_all(b"GET / HT")
        assert await stream.receive_some() == b""


async def test_a_trusted_proxy_names_the_peer(epoll):
    transport = Transport(proxies=("127.0.0.0/8",))
    async with serving("tcp://127.0.0.1:0", "ws://127.0.0.1:0", transport=transport, epoll=epoll) as broker:
        tcp, ws = broker.addresses
        assert await talk(await reach(tcp), PROXIED + b"hello") == b"tcp 192.0.2.1 False None hello"
        assert await talk(await reach(tcp), LOCAL + b"hello") == b"tcp 127.0.0.1 True None hello"
        assert await talk(await reach(tcp), b"PROXY UNKNOWN\r\nhello") == b"tcp 127.0.0.1 False None hello"
        stream = await reach(ws)
        await stream.send_all(PROXIED)
        over = WebSocketStream(stream)
        await over.upgrade("/")
        assert await talk(over, b"hello") == b"ws 192.0.2.1 False None hello"


async def test_tls_comes_behind_the_header(files):
    client = ssl.create_default_context(cafile=str(files.ca))
    transport = Transport(tls(files), proxies=("127.0.0.1",))
    async with serving("tls://127.0.0.1:0", transport=transport) as broker:
        plain = await reach(broker.addresses[0].replace("tls", "tcp"))
        await plain.send_all(PROXIED)
        stream = trio.SSLStream(plain, client, server_hostname="localhost", https_compatible=True)
        assert await talk(stream, b"hello") == b"tls 192.0.2.1 False None hello"


async def test_a_trusted_proxy_without_a_header_is_closed(autojump_clock):
    async with serving("tcp://127.0.0.1:0", transport=Transport(proxies=("127.0.0.1",)), handshake_timeout_s=0.1) as broker:
        assert await talk(await reach(broker.addresses[0]), b"hello") == b""
        assert broker.counters["violations"] == 1
        silent = await reach(broker.addresses[0])
        assert await silent.receive_some() == b""
        assert broker.counters["handshake_timeouts"] == 1


async def test_nobody_else_can_pretend_to_be_somebody():
    async with serving("tcp://127.0.0.1:0", transport=Transport(proxies=("192.0.2.0/24", "unix"))) as broker:
        answer = await talk(await reach(broker.addresses[0]), PROXIED)
        assert answer == b"tcp 127.0.0.1 True None " + PROXIED


async def test_a_proxy_may_come_over_a_unix_socket(tmp_path):
    async with serving(f"unix:{tmp_path}/s", transport=Transport(proxies=("unix",))) as broker:
        assert await talk(await reach(broker.addresses[0]), PROXIED + b"hello") == b"unix 192.0.2.1 False None hello"
        assert await talk(await reach(broker.addresses[0]), LOCAL + b"hello") == b"unix 127.0.0.1 True None hello"


async def test_a_socket_file_has_its_mode_and_goes_at_the_end(tmp_path):
    path = tmp_path / "s"
    async with serving(f"unix:{path}", transport=Transport(unix_mode=0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_file_that_another_broker_has_put_there_meanwhile_stays(tmp_path):
    path = tmp_path / "s"
    async with serving(f"unix:{path}"):
        path.rename(tmp_path / "kept")
        path.write_text("of somebody else")
    assert path.read_text() == "of somebody else"


async def test_a_socket_file_on_which_nobody_listens_is_replaced(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(f"unix:{path}") as broker:
        assert (await talk(await reach(broker.addresses[0]), b"hello")).endswith(b"hello")


async def refused(listen, kind, **more):
    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(listen, **more):
            pass
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, kind)
    return error.text


async def test_a_socket_on_which_somebody_listens_is_not_taken_from_him(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        said = await refused(f"unix:{path}", ListenError)
        assert said == (
            f"unix:{path} can't be listened on: another program listens there; "
            "choose another by frontend.test.listen, or switch it off by frontend.test.enabled = false"
        )
    assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "s"
    path.write_text("mine")
    assert "it is no socket" in await refused(f"unix:{path}", ListenError)
    assert path.read_text() == "mine"


async def test_a_directory_that_is_missing_is_said_to_be(tmp_path):
    assert "No such file or directory" in await refused(f"unix:{tmp_path}/none/s", ListenError)


async def test_addresses_that_can_not_be_served_are_refused():
    assert "does not speak over WebSocket" in await refused("ws://127.0.0.1:0", ConfigError, websocket=())
    assert "tls.certificate is not set" in await refused("tls://127.0.0.1:0", ConfigError)
    assert "must be an address" in await refused("mqtt://127.0.0.1:0", ConfigError)


async def test_without_websocket_what_looks_like_http_is_the_front_ends_own():
    async with serving("tcp://127.0.0.1:0", websocket=()) as broker:
        assert await talk(await reach(broker.addresses[0]), b"GET / HTTP/1.1") == b"tcp 127.0.0.1 True None GET / HTTP/1.1"
