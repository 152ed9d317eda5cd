import pytest

from tests.client.fake_router import FakeRouter


@pytest.fixture
def router():
    with FakeRouter() as fake:
        yield fake


@pytest.fixture
def quick_router():
    """Heartbeats of 200 ms: death is noticed while a test waits."""
    with FakeRouter(heartbeat_ms=200) as fake:
        yield fake
