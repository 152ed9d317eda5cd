"""Do programs that never wait, and those with many threads, run as they do with RabbitMQ?"""

import threading

import pika

from tests.interop.amqp_programs import PATIENCE_S
from tests.interop.pika_programs import DURABLE, parameters


class Echo:
    """pika's SelectConnection: publishes with confirms, consumes its own, and ends when all came and all are confirmed."""

    COUNT = 200

    def __init__(self, port):
        self.confirmed = 0
        self.received = []
        self.name = ""
        self.why = []
        self.connection = pika.SelectConnection(
            parameters(port), on_open_callback=self.opened, on_close_callback=self.closed, on_open_error_callback=self.closed
        )

    def opened(self, connection):
        connection.channel(on_open_callback=self.channel_opened)

    def channel_opened(self, channel):
        self.channel = channel
        channel.basic_qos(prefetch_count=20)
        channel.confirm_delivery(self.confirm)
        channel.queue_declare("", exclusive=True, callback=self.declared)

    def declared(self, frame):
        self.name = frame.method.queue
        self.channel.basic_consume(self.name, self.message, callback=self.consuming)

    def consuming(self, _frame):
        for n in range(self.COUNT):
            self.channel.basic_publish("", self.name, f"{n}", DURABLE)

    def confirm(self, frame):
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        self.confirmed = frame.method.delivery_tag if frame.method.multiple else self.confirmed + 1
        self.end()

    def message(self, channel, method, properties, body):
        self.received.append(int(body))
        channel.basic_ack(method.delivery_tag)
        self.end()

    def end(self):
        if len(self.received) == self.COUNT and self.confirmed == self.COUNT:
            self.connection.close()

    def closed(self, connection, why):
        self.why.append(why)
        connection.ioloop.stop()


def test_a_program_with_callbacks_publishes_and_consumes(amqp_port):
    echo = Echo(amqp_port)
    echo.connection.ioloop.call_later(PATIENCE_S, echo.connection.ioloop.stop)
    echo.connection.ioloop.start()
    echo.connection.ioloop.close()
    assert echo.received == list(range(Echo.COUNT))
    assert echo.confirmed == Echo.COUNT
    assert [why.reply_code for why in echo.why] == [200]


def test_pipelined_methods_are_answered_in_order(amqp_port):
    answers = []

    def opened(connection):
        connection.channel(on_open_callback=channel_opened)

    def channel_opened(channel):
        for n in range(30):
            channel.queue_declare(f"pipelined-{n}", exclusive=True, callback=lambda frame: answers.append(frame.method.queue))
        channel.queue_purge("pipelined-7", callback=lambda _frame: channel.connection.close())

    connection = pika.SelectConnection(
        parameters(amqp_port), on_open_callback=opened, on_close_callback=lambda connection, why: connection.ioloop.stop()
    )
    connection.ioloop.call_later(PATIENCE_S, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert answers == [f"pipelined-{n}" for n in range(30)]


def test_threads_with_a_connection_each_lose_nothing(amqp_port, connect, fresh):
    name = fresh("threads")
    connect().channel().queue_declare(name, durable=True)

    def publish(number):
        channel = pika.BlockingConnection(parameters(amqp_port)).channel()
        channel.confirm_delivery()
        for n in range(50):
            channel.basic_publish("", name, f"{number} {n}", DURABLE)
        channel.connection.close()

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    channel = connect().channel()
    received = []
    for _method, _properties, body in channel.consume(name, auto_ack=True, inactivity_timeout=PATIENCE_S):
        received.append(body.decode())
        if len(received) == 200:
            break
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(f"{number} {n}" for number in range(4) for n in range(50))
