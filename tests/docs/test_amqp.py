"""Is docs/amqp.md true: the errors that it lists, the differences from RabbitMQ that it names, who gets in?"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import tomllib

import pika
import pytest
from pamqp import commands, frame
from pika import BasicProperties
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker, NackError

from gateway.config import Config
from gateway_amqp.handshake import CAPABILITIES
from gateway_amqp.settings import AmqpSettings
from tests.certificates import Files, authority
from tests.docs.pages import read
from tests.live_broker import TIDEGATE, LiveBroker

PAGE, block = read("docs/amqp.md")
PATIENCE_S = 30
BROKER = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]
max_message_bytes = 65536
[frontend.mqtt]
enabled = false
[frontend.zeromq]
enabled = false
"""
HEADER = b"AMQP\x00\x00\x09\x01"


def listed(kind):
    """Return the errors of one of the page's tables; those that go on with a reason of their own as far as they are written."""
    table = PAGE.partition(f"<!-- {kind} errors -->\n")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\d{3} [^`]+)`", table, re.MULTILINE)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("amqp"), BROKER) as broker:
        yield broker


class Client:
    """A connection of pika's with a channel, number 1."""

    def __init__(self, live, **parameters):
        self._live = live
        host, port = live.where("amqp")
        given = {"blocked_connection_timeout": PATIENCE_S, **parameters}
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(host, port, **given))
        self.channel = self.connection.channel()

    def another(self):
        return Client(self._live)

    def close(self):
        if self.connection.is_open:
            self.connection.close()


@pytest.fixture
def client(live):
    client = Client(live)
    for queue in ("q", "o"):
        client.channel.queue_delete(queue)
    client.channel.exchange_delete("x")
    yield client
    client.close()


def told(client, do):
    """Return what a client is told for what it does: code and text."""

    def answered():
        do(client)
        client.channel.queue_declare("o")  # for what has no answer of its own

    with pytest.raises((ChannelClosedByBroker, ConnectionClosedByBroker)) as error:
        answered()
    assert isinstance(error.value, ChannelClosedByBroker) is client.connection.is_open
    return f"{error.value.reply_code} {error.value.reply_text}"


def consume(channel, queue="q", **options):
    return channel.basic_consume(queue, lambda *_: None, **options)


def declare_twice(first, second):
    def do(client):
        client.channel.queue_declare("q", **first)
        client.channel.queue_declare("q", **second)

    return do


def declare_exchange_twice(client):
    client.channel.exchange_declare("x", "direct")
    client.channel.exchange_declare("x", "fanout")


def publish_internal(client):
    client.channel.exchange_declare("x", internal=True)
    client.channel.basic_publish("x", "key", b"")


def with_queue(do, **arguments):
    def both(client):
        client.channel.queue_declare("q", arguments=arguments)
        do(client.channel)

    return both


def consume_twice(channel):
    consume(channel, exclusive=True)
    consume(channel)


def lock(client):
    client.channel.queue_declare("q", exclusive=True)
    other = client.another()
    try:
        other.channel.queue_declare("q")
    finally:
        other.close()


def told_of_a_lock(client):
    with pytest.raises(ChannelClosedByBroker) as error:
        lock(client)
    return f"{error.value.reply_code} {error.value.reply_text}"


def delete_full(channel):
    channel.basic_publish("", "q", b"")
    channel.queue_delete("q", if_empty=True)


def delete_bound(channel):
    channel.exchange_declare("x")
    channel.queue_bind("q", "x")
    channel.exchange_delete("x", if_unused=True)


def publish(**properties):
    return lambda client: client.channel.basic_publish("", "q", b"", BasicProperties(**properties))


def acknowledge_late(channel):
    channel.basic_publish("", "q", b"")
    tag = channel.basic_get("q")[0].delivery_tag
    channel.connection.sleep(0.5)
    channel.basic_ack(tag)


def reply_twice(client):
    for _ in range(2):
        consume(client.channel, "amq.rabbitmq.reply-to", auto_ack=True)


def modes(first, second):
    def do(client):
        getattr(client.channel, first)()
        getattr(client.channel, second)()

    return do


def commit_too_much(channel):
    channel.tx_select()
    for _ in range(2):
        channel.basic_publish("", "q", b"")
    channel.tx_commit()


def open_too_large_a_transaction(client):
    client.channel.tx_select()
    for _ in range(300):
        client.channel.basic_publish("", "q", bytes(65_536))


OF_A_CHANNEL = {
    "queue name 'amq.q' contains": lambda client: client.channel.queue_declare("amq.q"),
    "exchange name 'amq.x' contains": lambda client: client.channel.exchange_declare("amq.x"),
    "deletion of system exchange": lambda client: client.channel.exchange_delete("amq.topic"),
    "operation not permitted": with_queue(lambda channel: channel.queue_bind("q", "", "key")),
    "cannot publish to internal": publish_internal,
    "in exclusive use": with_queue(consume_twice),
    "a message has at most": publish(headers={"CC": [f"key {number}" for number in range(1_000)]}),
    "no queue 'q'": lambda client: client.channel.basic_get("q"),
    "no exchange 'x'": lambda client: client.channel.basic_publish("x", "key", b""),
    "no previously declared queue": lambda client: consume(client.channel, ""),
    "inequivalent arg 'durable'": declare_twice({}, {"durable": True}),
    "inequivalent arg 'x-message-ttl'": declare_twice({"arguments": {"x-message-ttl": 1000}}, {}),
    "inequivalent arg 'type'": declare_exchange_twice,
    "invalid arg 'x-message-ttl'": lambda client: client.channel.queue_declare("q", arguments={"x-message-ttl": -1}),
    "invalid arg 'x-priority'": with_queue(lambda channel: consume(channel, arguments={"x-priority": "high"})),
    "queue 'q' in vhost '/' in use": with_queue(lambda channel: (consume(channel), channel.queue_delete("q", if_unused=True))),
    "not empty": with_queue(delete_full),
    "exchange 'x' in vhost '/' in use": with_queue(delete_bound),
    "unknown delivery tag 1": lambda client: client.channel.basic_ack(1),
    "timed out": with_queue(acknowledge_late, **{"x-consumer-timeout": 100}),
    "user_id property": publish(user_id="ada"),
    "invalid expiration": publish(expiration="soon"),
    "unacceptable_type_in_header": publish(headers={"CC": "key"}),
    "message size 65537": lambda client: client.channel.basic_publish("", "q", bytes(65_537)),
    "reply consumer cannot": lambda client: consume(client.channel, "amq.rabbitmq.reply-to"),
    "reply consumer already": reply_twice,
    "fast reply consumer": publish(reply_to="amq.rabbitmq.reply-to"),
    "from tx to confirm": modes("tx_select", "confirm_delivery"),
    "from confirm to tx": modes("confirm_delivery", "tx_select"),
    "not transactional": lambda client: client.channel.tx_commit(),
    "is full": with_queue(commit_too_much, **{"x-max-length": 1, "x-overflow": "reject-publish"}),
    "invalid x-match": with_queue(lambda channel: channel.queue_bind("q", "amq.headers", "", {"x-match": "some"})),
    "open transactions": open_too_large_a_transaction,
}


@pytest.mark.parametrize("what", OF_A_CHANNEL)
def test_an_error_of_a_channel_reads_as_the_page_says(client, what):
    (text,) = [text for text in listed("channel") if what in text]
    assert told(client, OF_A_CHANNEL[what]) == text


def test_an_exclusive_queue_of_others_is_refused_as_the_page_says(client):
    (text,) = [text for text in listed("channel") if text.startswith("405")]
    assert told_of_a_lock(client) == text


def test_every_error_of_a_channel_that_the_page_lists_is_provoked_here():
    provoked = [text for text in listed("channel") if any(what in text for what in OF_A_CHANNEL)]
    rest = [text for text in listed("channel") if text not in provoked]
    assert [text[:3] for text in rest] == ["405", "506"]  # the last one is an alarm's, see below


def consume_one_tag_twice(client):
    client.channel.queue_declare("q")
    consume(client.channel, consumer_tag="t")
    client.channel._consumer_infos.clear()  # pika would not ask for it
    client.channel._impl._consumers.clear()
    consume(client.channel, consumer_tag="t")


OF_A_CONNECTION = {
    "unknown exchange type": lambda client: client.channel.exchange_declare("x", "nonsense"),
    "attempt to reuse": consume_one_tag_twice,
    "queue type 'stream'": lambda client: client.channel.queue_declare("q", arguments={"x-queue-type": "stream"}, durable=True),
    "prefetch_size": lambda client: client.channel.basic_qos(prefetch_size=10),
    "requeue=false": lambda client: client.channel.basic_recover(requeue=False),
    "active=false": lambda client: client.channel.flow(active=False),
}


@pytest.mark.parametrize("what", OF_A_CONNECTION)
def test_an_error_of_a_connection_reads_as_the_page_says(client, what):
    (text,) = [text for text in listed("connection") if what in text]
    assert told(client, OF_A_CONNECTION[what]) == text


def marshal(command, number=1):
    return frame.marshal(command, number)


def closing(live, *frames, tune=(2, 131_072), vhost="/", password="guest"):
    """Log in, send frames, and return code and text of the Connection.Close that comes."""
    greeting = {"capabilities": {"authentication_failure_close": True}}
    start = commands.Connection.StartOk(greeting, "PLAIN", f"\0guest\0{password}", "en_US")
    tuned = commands.Connection.TuneOk(*tune, 0)
    opening = [marshal(command, 0) for command in (start, tuned, commands.Connection.Open(vhost))]
    with socket.create_connection(live.where("amqp"), timeout=PATIENCE_S) as peer:
        peer.sendall(HEADER + b"".join([*opening, *frames]))
        data = b""
        while received := peer.recv(65_536):
            data += received
            while data and (end := whole(data)):
                _, _, command = frame.unmarshal(data[:end])
                data = data[end:]
                if isinstance(command, commands.Connection.Close):
                    return f"{command.reply_code} {command.reply_text}"
    raise AssertionError(data)


def whole(data):
    end = int.from_bytes(data[3:7], "big") + 8
    return end if len(data) >= max(end, 7) else 0


def raw(payload, kind=1, number=1, end=b"\xce"):
    return bytes([kind]) + number.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + end


OPEN = marshal(commands.Channel.Open())
IMMEDIATE = raw(b"\0\x3c\0\x28" + b"\0\0" + b"\0" + b"\1q" + b"\2") + raw(b"\0\x3c\0\0" + bytes(8) + b"\0\0", kind=2)
ON_THE_WIRE = {
    "unknown method": ((OPEN, raw(b"\0\x3c\0\x63")), {}),
    "expected 'channel.open'": ((marshal(commands.Tx.Select()),), {}),
    "second 'channel.open'": ((OPEN, OPEN), {}),
    "expected method frame": ((OPEN, raw(b"body", kind=3)), {}),
    "immediate=true": ((OPEN, IMMEDIATE), {}),
    "number of channels": ([marshal(commands.Channel.Open(), number) for number in (1, 2, 3)], {}),
    "vhost nosuch": ((), {"vhost": "nosuch"}),
    "frame_max": ((), {"tune": (2, 100)}),
    "Login was refused": ((), {"password": "wrong"}),
    "501 FRAME_ERROR": ((OPEN, raw(b"", end=b"!")), {}),
    "502 SYNTAX_ERROR": ((OPEN, raw(b"\0\x32\0\x0a\0\0\x05q")), {}),
}


@pytest.mark.parametrize("what", ON_THE_WIRE)
def test_an_error_on_the_wire_reads_as_the_page_says(live, what):
    (text,) = [text for text in listed("connection") if what in text]
    frames, how = ON_THE_WIRE[what]
    said = closing(live, *frames, **how)
    assert said == text or (text.endswith(" - ") and said.startswith(text))


def test_every_error_of_a_connection_that_the_page_lists_is_provoked_here():
    known = [*OF_A_CONNECTION, *ON_THE_WIRE]
    rest = [text for text in listed("connection") if not any(what in text for what in known)]
    assert [text[:3] for text in rest] == ["320", "506"]  # 320: below; 506: tests/amqp, with gigabytes that are not sent here


# -- what differs from RabbitMQ -------------------------------------------------


def bodies(channel, queue="q"):
    found = []
    while (got := channel.basic_get(queue, auto_ack=True))[0]:
        found.append(got[2])
    return found


def test_unacknowledged_messages_count_in_a_full_queue(client):
    channel = client.channel
    channel.confirm_delivery()
    channel.queue_declare("q", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.basic_publish("", "q", b"first")
    assert channel.basic_get("q")[2] == b"first"
    with pytest.raises(NackError):
        channel.basic_publish("", "q", b"second")


def test_a_full_queue_drops_the_oldest_of_the_lowest_priority(client):
    channel = client.channel
    channel.queue_declare("q", arguments={"x-max-priority": 5, "x-max-length": 2})
    for body, priority in ((b"urgent", 5), (b"old", 0), (b"new", 0)):
        channel.basic_publish("", "q", body, BasicProperties(priority=priority))
    channel.queue_declare("o")
    assert bodies(channel) == [b"urgent", b"new"]


def test_a_transaction_that_a_full_queue_refuses_has_not_happened(client):
    assert "q' is full" in told(client, with_queue(commit_too_much, **{"x-max-length": 1, "x-overflow": "reject-publish"}))
    assert bodies(client.connection.channel()) == []


def test_an_unknown_argument_is_taken_and_said_in_the_log(client, live):
    client.channel.queue_declare("q", arguments={"x-nonsense": 1})
    assert "x-nonsense" in (live.directory / "broker.log").read_text()


def test_a_quorum_queue_is_a_queue_like_any_other(client):
    channel = client.channel
    channel.queue_declare("q", arguments={"x-queue-type": "quorum", "x-max-priority": 5})
    channel.queue_declare("q", arguments={"x-queue-type": "classic", "x-max-priority": 5})
    channel.basic_qos(prefetch_count=1, global_qos=True)
    consume(channel)


def test_a_key_that_is_not_utf_8_is_a_syntax_error(live):
    publishing = raw(b"\0\x3c\0\x28" + b"\0\0" + b"\0" + b"\2\xff\xfe" + b"\0") + raw(b"\0\x3c\0\0" + bytes(8) + b"\0\0", kind=2)
    assert closing(live, OPEN, publishing).startswith("502 ")


def test_the_reply_queue_of_direct_reply_to_is_a_queue(client):
    channel = client.channel
    consume(channel, "amq.rabbitmq.reply-to", auto_ack=True)
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"?", BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    name = channel.basic_get("q", auto_ack=True)[1].reply_to
    assert name.startswith("amq.rabbitmq.reply-to.")
    assert channel.queue_declare(name, passive=True).method.consumer_count == 1


def test_a_refused_message_is_counted_where_nobody_is_told(client, live):
    with_queue(lambda channel: None, **{"x-max-length": 1, "x-overflow": "reject-publish"})(client)
    for body in (b"first", b"second"):
        client.channel.basic_publish("", "q", body, BasicProperties(delivery_mode=2))
    client.channel.queue_declare("o")
    assert bodies(client.channel) == [b"first"]
    asked = [TIDEGATE, "counters", "--data-dir", str(live.directory / "data")]
    counted = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
    assert "refused.full" in counted


def test_the_page_names_every_capability_and_no_other():
    (row,) = re.findall(r"^\| capabilities \| (.*) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", row) == list(CAPABILITIES)


# -- who gets in -----------------------------------------------------------------


def test_its_configuration_for_tls_is_valid():
    config = Config.model_validate(tomllib.loads(block("tls")))
    assert config.validated_front_end("amqp", AmqpSettings).listen[1].startswith("tls://")
    assert config.security.anonymous


def test_a_client_with_a_certificate_is_let_in_told_of_alarms_and_of_the_end(tmp_path):
    files = Files(tmp_path)
    files.issue()
    files.ca.write_bytes(authority("good").cert_pem.bytes())
    files.issue_client("press 3")
    configuration = BROKER.replace("tcp://127.0.0.1:5672", "tls://127.0.0.1:5671") + block("tls").partition("\n\n")[2]
    for name, file in (("server.pem", files.certificate), ("server.key", files.key), ("programs.pem", files.ca)):
        configuration = configuration.replace(f"/etc/tidegate/{name}", str(file))
    configuration = configuration.replace("5671", "0") + "[journal]\nmin_free_bytes = 1000000000000000\n"
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.client)
    with LiveBroker(tmp_path, configuration) as live:
        port = int(live.addresses["amqp"].rpartition(":")[2])
        parameters = pika.ConnectionParameters(
            "127.0.0.1", port, ssl_options=pika.SSLOptions(context, "localhost"), credentials=pika.credentials.ExternalCredentials()
        )
        connection = pika.BlockingConnection(parameters)
        reasons = []
        connection.add_on_connection_blocked_callback(lambda _, method: reasons.append(method.method.reason))
        channel = connection.channel()
        channel.basic_publish("", "nobody", b"", BasicProperties(user_id="anonymous"))
        with pytest.raises(ChannelClosedByBroker) as refused:
            channel.queue_declare("q", durable=True)
        assert refused.value.reply_code == 506
        connection.process_data_events(0.1)
        assert [f"RESOURCE_ERROR - {reason}" for reason in reasons] == [refused.value.reply_text]
        live.stop()
        with pytest.raises(AMQPError) as ended:
            connection.process_data_events(PATIENCE_S)
    (text,) = [text for text in listed("connection") if text.startswith("320")]
    assert f"{ended.value.reply_code} {ended.value.reply_text}" == text
