"""The TLS layer: Python's own client on the other side, cut anywhere."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import TlsSettings, Transport
from gateway.runtime.streams.certificates import make_context
from gateway.runtime.streams.tls import MAX_HELLO_BYTES, Tls, TlsFailure
from tests import certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = certificates.make(tmp_path_factory.mktemp("tls"))
    files.issue_client("device 1")
    return files


@pytest.fixture(scope="module")
def context(files):
    return server_context(files)


def server_context(files, **settings):
    return make_context(Transport(TlsSettings(certificate=files.certificate, key=files.key, **settings)))


def client_context(files, *, certificate=None, most=None):
    context = ssl.create_default_context(cafile=str(files.ca))
    if certificate is not None:
        context.load_cert_chain(certificate)
    if most is not None:
        context.maximum_version = most
    return context


class Client:
    def __init__(self, layer, context, *, cut=1 << 20):
        self.layer = layer
        self.cut = cut
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.heard = b""

    def exchange(self):
        """Carry what there is both ways, until there is nothing."""
        while True:
            data = self.outgoing.read()
            for at in range(0, len(data), self.cut):
                self.heard += self.layer.received(data[at : at + self.cut])
            answer = b"".join(self.layer.out)
            self.layer.out.clear()
            self.incoming.write(answer)
            if not data and not answer:
                return
            if not self.layer.settled or self.tls.version() is None:
                self.shake_hands()

    def shake_hands(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()

    def connect(self):
        self.shake_hands()
        self.exchange()
        return self

    def send(self, data):
        self.tls.write(data)
        self.exchange()

    def read(self, size=1 << 20):
        data = b""
        try:
            while piece := self.tls.read(size):
                data += piece
        except ssl.SSLWantReadError:
            pass
        return data


@pytest.fixture
def client(files, context):
    return Client(Tls(context), client_context(files)).connect()


def test_bytes_go_both_ways(client):
    client.send(b"in")
    assert client.heard == b"in"
    client.incoming.write(client.layer.sending(b"out"))
    assert client.read() == b"out"
    assert client.tls.version() == "TLSv1.3"
    assert client.layer.certificate_subject is None


def test_what_is_larger_than_a_record_is_sent_whole(client):
    data = bytes(range(256)) * 1_000
    client.incoming.write(client.layer.sending(data))
    assert client.read() == data


@pytest.mark.parametrize("most", [None, ssl.TLSVersion.TLSv1_2])
def test_records_may_be_cut_at_every_byte(files, context, most):
    client = Client(Tls(context), client_context(files, most=most), cut=1).connect()
    assert client.layer.settled
    client.send(b"hello" * 100)
    assert client.heard == b"hello" * 100


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=5), st.integers(1, 300))
@settings(max_examples=25)
def test_what_is_said_arrives_however_it_is_cut(files, context, said, cut):
    client = Client(Tls(context), client_context(files), cut=cut).connect()
    for data in said:
        client.send(data)
    assert client.heard == b"".join(said)


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=50)
def test_any_bytes_are_taken_or_refused_with_an_alert(context, data):
    layer = Tls(context)
    try:
        assert layer.received(data) == b""
    except TlsFailure:
        assert layer.ended
        assert layer.received(b"more") == layer.goodbye() == layer.sending(b"x") == b""


def test_what_is_sent_before_the_handshake_is_done_goes_out_after_it(files, context):
    layer = Tls(context)
    assert layer.sending(b"welcome") == b""
    client = Client(layer, client_context(files)).connect()
    assert client.read() == b"welcome"


def hello(files):
    """What a client says first."""
    client = Client(None, client_context(files))
    client.shake_hands()
    return client, client.outgoing.read()


def test_the_answer_to_the_first_message_may_be_put_off_and_is_given_once(files, context):
    asked = []
    layer = Tls(context, lambda: asked.append(layer))
    client, said = hello(files)
    for at in range(0, len(said), 50):
        assert layer.received(said[at : at + 50]) == b""
    assert (asked, layer.out, layer.settled) == ([layer], [], False)
    assert layer.received(b"") == b""
    assert layer.out
    client.layer = layer
    client.exchange()
    client.send(b"now at once")
    assert (client.heard, asked) == (b"now at once", [layer])


def test_part_of_the_first_message_is_put_off_again(files, context):
    asked = []
    layer = Tls(context, lambda: asked.append(1))
    _, said = hello(files)
    layer.received(said[:100])
    layer.received(b"")
    assert (asked, layer.out) == ([1], [])
    layer.received(said[100:])
    layer.received(b"")
    assert asked == [1, 1]
    assert layer.out


def test_what_is_no_first_message_is_refused_when_its_turn_comes(context):
    layer = Tls(context, lambda: None)
    assert layer.received(b"GET / HTTP/1.1\r\n") == b""
    with pytest.raises(TlsFailure, match="http request"):
        layer.received(b"")


def test_nobody_can_fill_the_memory_before_his_turn_comes(context):
    layer = Tls(context, lambda: None)
    layer.received(b"\x16" * MAX_HELLO_BYTES)
    with pytest.raises(TlsFailure, match="before the answer"):
        layer.received(b"\x16")
    assert layer.ended


def test_a_damaged_record_ends_the_connection(client):
    client.tls.write(b"hello")
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    with pytest.raises(TlsFailure, match="TLS: "):
        client.layer.received(bytes(record))
    assert client.layer.out


def test_a_peers_goodbye_ends_and_is_answered(client):
    client.tls.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.exchange()
    assert client.heard == b"last words"
    assert client.layer.ended
    assert client.layer.goodbye() == b""
    client.tls.unwrap()


def test_the_brokers_goodbye_is_close_notify(client):
    client.incoming.write(client.layer.goodbye())
    assert client.tls.read(1) == b""
    assert client.layer.goodbye() == b""


@pytest.mark.parametrize("most", [None, ssl.TLSVersion.TLSv1_2])
def test_a_clients_certificate_is_verified_and_its_common_name_known(files, most):
    context = server_context(files, client_ca=files.ca, client_certificate="required")
    client = Client(Tls(context), client_context(files, certificate=files.client, most=most)).connect()
    client.send(b"x")
    assert client.heard == b"x"
    assert client.layer.certificate_subject == "device 1"


@pytest.mark.parametrize("mode", ["required", None])
def test_without_a_certificate_nobody_gets_in_where_one_is_required_or_roots_are_named_and_nothing_else_is_said(files, mode):
    context = server_context(files, client_ca=files.ca, client_certificate=mode)
    with pytest.raises(TlsFailure, match="peer did not return a certificate"):
        Client(Tls(context), client_context(files)).connect()


@pytest.mark.parametrize("mode", ["optional", "none"])
def test_without_a_certificate_one_gets_in_where_it_is_optional(files, mode):
    context = server_context(files, client_ca=files.ca, client_certificate=mode)
    assert Client(Tls(context), client_context(files)).connect().layer.certificate_subject is None


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_a_strangers_certificate_is_refused(files, tmp_path, mode):
    stranger = certificates.Files(tmp_path).issue_client("device 1", by="stranger")
    context = server_context(files, client_ca=files.ca, client_certificate=mode)
    with pytest.raises(TlsFailure, match="certificate verify failed"):
        Client(Tls(context), client_context(files, certificate=stranger)).connect()


def test_a_session_is_resumed_with_the_certificate_that_was_verified(files):
    context = server_context(files, client_ca=files.ca, client_certificate="required")
    mine = client_context(files, certificate=files.client, most=ssl.TLSVersion.TLSv1_2)
    first = Client(Tls(context), mine).connect()
    again = Client(Tls(context), mine)
    again.tls = mine.wrap_bio(again.incoming, again.outgoing, server_hostname="localhost", session=first.tls.session)
    again.connect()
    assert again.tls.session_reused
    assert again.layer.certificate_subject == "device 1"


def test_older_versions_than_the_least_are_refused(files):
    context = server_context(files, min_version="1.3")
    with pytest.raises(TlsFailure, match="unsupported protocol"):
        Client(Tls(context), client_context(files, most=ssl.TLSVersion.TLSv1_2)).connect()


def test_what_is_no_tls_is_named(context):
    with pytest.raises(TlsFailure, match="TLS: "):
        Tls(context).received(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
