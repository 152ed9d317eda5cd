"""Real sockets and a real client (pika): what the wire without sockets can't show."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pika
import pytest
import trio
from pamqp import commands, frame
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from gateway.api import AccessRefused, Principal
from gateway.errors import ListenError
from gateway_amqp.plugin import AmqpFrontEnd
from gateway_amqp.settings import AmqpSettings
from tests.amqp.rooms import PATIENCE_S
from tests.amqp.wire import HEADER, HEARTBEAT, publishing
from tests.certificates import Files, authority
from tests.live_broker import LiveBroker
from tests.runtime.support import HandJournal, Log, running


class Served:
    """A broker with the front-end on a free port."""

    def __init__(self, broker: object, log: Log, port: int, ended: trio.Event) -> None:
        self.broker = broker
        self.log = log
        self.port = port
        self.ended = ended

    async def pika(self, **parameters: object) -> pika.BlockingConnection:
        given = {"host": "127.0.0.1", "port": self.port, "blocked_connection_timeout": PATIENCE_S, **parameters}
        return await trio.to_thread.run_sync(partial(pika.BlockingConnection, pika.ConnectionParameters(**given)))


@asynccontextmanager
async def served(**settings: object) -> AsyncIterator[Served]:
    front_end = AmqpFrontEnd()
    with trio.fail_after(PATIENCE_S):
        async with running(HandJournal(automatic=True)) as broker, trio.open_nursery() as nursery:
            log = Log()
            listening: list[str] = []
            gateway = broker.gateway("amqp", listening.append, log)
            broker.authenticate_now = lambda given: Principal(given.user or "anonymous")
            broker.decoders.register("amqp", front_end.wire_decoders["amqp"])
            given = AmqpSettings(**{"listen": ["tcp://127.0.0.1:0"], **settings})
            ended = trio.Event()

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                await front_end.serve(gateway, given, task_status=task_status)
                ended.set()

            await nursery.start(serve)
            try:
                yield Served(broker, log, int(listening[0].rpartition(":")[2]), ended)
            finally:
                nursery.cancel_scope.cancel()


def opening(heartbeat_s: int = 0) -> bytes:
    """Return all that a client says until its connection is open, behind its header."""
    said = [
        commands.Connection.StartOk({}, "PLAIN", "\x00guest\x00guest", "en_US"),
        commands.Connection.TuneOk(0, 0, heartbeat_s),
        commands.Connection.Open("/"),
    ]
    return b"".join(frame.marshal(method, 0) for method in said)


async def test_the_first_program_of_everybody_works():
    def hello(port: int) -> tuple[bytes, int]:
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
        channel = connection.channel()
        channel.queue_declare("hello")
        channel.confirm_delivery()
        channel.basic_publish(exchange="", routing_key="hello", body=b"Hello World!", mandatory=True)
        method, _, body = next(channel.consume("hello", inactivity_timeout=PATIENCE_S))
        channel.basic_ack(method.delivery_tag)
        left = channel.cancel()
        connection.close()
        return body, left

    async with served() as bench:
        assert await trio.to_thread.run_sync(hello, bench.port) == (b"Hello World!", 0)


async def test_an_unknown_virtual_host_is_what_a_client_makes_of_it():
    async with served() as bench:
        with pytest.raises(ProbableAccessDeniedError):
            await bench.pika(virtual_host="nowhere")


async def test_a_refused_password_is_what_a_client_makes_of_it():
    def refuse(credentials: object) -> None:
        raise AccessRefused("wrong")

    async with served() as bench:
        bench.broker.authenticate_now = refuse
        with pytest.raises(ProbableAuthenticationError):
            await bench.pika()


async def test_a_broker_that_stops_says_so():
    async with served() as bench:
        connection = await bench.pika()
        bench.broker.start_draining()
        with pytest.raises(ConnectionClosedByBroker) as error:
            await trio.to_thread.run_sync(partial(connection.process_data_events, time_limit=PATIENCE_S))
        assert error.value.reply_code == 320
        await bench.ended.wait()


async def test_heartbeats_are_sent_and_who_sends_none_is_gone():
    async with served() as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(HEADER + opening(heartbeat_s=1))
        heard = b""
        while part := await stream.receive_some(65_536):
            heard += part
        assert HEARTBEAT in heard  # when each is due is asked of a clock that jumps
        assert bench.broker.counters["amqp.heartbeats_missed"] == 1
        await stream.aclose()


async def test_who_does_not_open_in_time_is_closed():
    async with served(connect_timeout_s=0.2) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        with suppress(trio.BrokenResourceError):  # it may have been closed before it was heard
            await stream.send_all(HEADER)
            while await stream.receive_some(65_536):
                pass
        assert bench.broker.counters["amqp.connect_timeouts"] == 1
        await stream.aclose()


async def test_a_wrong_header_is_answered_on_a_real_socket():
    async with served() as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        heard = b""
        while part := await stream.receive_some(100):
            heard += part
        assert heard == HEADER
        await stream.aclose()


async def test_a_taken_port_is_told_before_it_is_ready():
    async with served() as bench:
        with pytest.raises(ExceptionGroup) as failure:
            async with served(listen=[f"tcp://127.0.0.1:{bench.port}"]):
                pass
        assert failure.group_contains(ListenError, match="frontend.amqp.listen")
        assert failure.group_contains(ListenError, match=r"frontend\.amqp\.enabled = false")


async def test_a_peer_that_asks_and_does_not_read_takes_bounded_memory():
    async with served(max_message_bytes=100_000) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(HEADER)
        await stream.send_all(opening() + frame.marshal(commands.Channel.Open(), 1))
        returned = publishing(1, "", "nowhere", b"x" * 100_000, mandatory=True)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(returned * 2_000)
        assert bench.broker.counters["amqp.slow_readers_closed"] == 1
        await stream.aclose()


async def test_tls_is_spoken_on_the_other_port(tmp_path):
    files = Files(tmp_path)
    files.issue()
    files.ca.write_bytes(authority("good").cert_pem.bytes())
    configuration = (
        '[frontend.amqp]\nlisten = "tls://127.0.0.1:0"\n'
        f'[frontend.amqp.tls]\ncertificate = "{files.certificate}"\nkey = "{files.key}"\nclient_ca = "{files.ca}"\n'
        "[frontend.mqtt]\nenabled = false\n[frontend.zeromq]\nenabled = false\n"
    )
    client = files.issue_client("worker-7")

    def talk(port: int) -> tuple[str, str]:
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(client)
        parameters = pika.ConnectionParameters(
            "127.0.0.1",
            port,
            ssl_options=pika.SSLOptions(context, "localhost"),
            credentials=pika.credentials.ExternalCredentials(),
        )
        connection = pika.BlockingConnection(parameters)
        said = connection._impl.server_properties["product"]
        name = connection.channel().queue_declare("", exclusive=True).method.queue
        connection.close()
        return said, name

    with LiveBroker(tmp_path, configuration) as broker:
        port = int(broker.addresses["amqp"].rpartition(":")[2])
        said, name = await trio.to_thread.run_sync(talk, port)
    assert said == "RabbitMQ"
    assert name.startswith("amq.gen-")
