"""A broker for AMQP clients: one for all tests of a worker, or one for a test that restarts it; and connections of pika to it."""

import pika
import pytest

from tests.interop.amqp_programs import AmqpBroker, needs_own_broker, oracle_port
from tests.interop.pika_programs import parameters


@pytest.fixture(scope="session")
def amqp_port(tmp_path_factory):
    """The port, on 127.0.0.1, of a broker that speaks AMQP 0-9-1."""
    port = oracle_port()
    if port is not None:
        yield port
        return
    broker = AmqpBroker(tmp_path_factory.mktemp("amqp"))
    broker.start()
    yield broker.port
    assert broker.stop() == 0


@pytest.fixture
def own_amqp_broker(tmp_path):
    """A broker that may be killed and started again."""
    needs_own_broker()
    broker = AmqpBroker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def connect(amqp_port):
    """Give what connects; each connection is closed at the end."""
    connections = []

    def make(**options):
        connections.append(pika.BlockingConnection(parameters(amqp_port, **options)))
        return connections[-1]

    yield make
    for connection in connections:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    return connection.channel()


@pytest.fixture
def fresh(connect):
    """Delete queues and exchanges, before and after."""
    queues, exchanges = [], []

    def clear():
        cleaner = connect().channel()
        for name in queues:
            cleaner.queue_delete(name)
        for name in exchanges:
            cleaner.exchange_delete(name)
        cleaner.connection.close()

    def make(*names, exchange=()):
        queues.extend(names)
        exchanges.extend([exchange] if isinstance(exchange, str) else exchange)
        clear()
        return names[0] if len(names) == 1 else names

    yield make
    clear()
