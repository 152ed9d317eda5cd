"""A broker for AMQP clients: one for all tests of a worker, or one for a test that restarts it."""

import pytest

from tests.interop.amqp_programs import AmqpBroker, needs_own_broker, oracle_port


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
