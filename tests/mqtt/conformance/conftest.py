"""Which brokers and clients do the conformance tests share?"""

import pytest

from tests.mqtt.conformance.support import lobby, shared_broker


@pytest.fixture(scope="package")
def port():
    """The port of a broker with the default settings."""
    with shared_broker() as number:
        yield number


@pytest.fixture(params=[4, 5], ids=["3.1.1", "5.0"])
async def any_level(port, request):
    """Clients of both levels, one after the other."""
    async with lobby(port, request.param) as place:
        yield place


@pytest.fixture
async def v3(port):
    async with lobby(port, 4) as place:
        yield place


@pytest.fixture
async def v5(port):
    async with lobby(port, 5) as place:
        yield place
