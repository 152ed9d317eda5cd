import pytest
import zmq

from tests.zeromq.support import PATIENCE_S


class Sockets:
    """A context that keeps its sockets until it is closed. None of them blocks for ever."""

    def __init__(self):
        self.context = zmq.Context()
        self.made = []

    def socket(self, kind):
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE_S * 1_000)
        socket.setsockopt(zmq.SNDTIMEO, PATIENCE_S * 1_000)
        self.made.append(socket)
        return socket

    def term(self):
        self.context.term()

    def close(self):
        for socket in self.made:
            socket.close(0)
        self.context.term()


@pytest.fixture
def context():
    sockets = Sockets()
    yield sockets
    sockets.close()


@pytest.fixture(params=["tcp", "inproc", "ipc"])
def address(request, tmp_path):
    """Where to bind; read the real address back with LAST_ENDPOINT."""
    return {"tcp": "tcp://127.0.0.1:*", "inproc": "inproc://test", "ipc": f"ipc://{tmp_path}/s"}[request.param]


@pytest.fixture
def clock(mock_clock):
    """Real time, that can be made to go by at once."""
    mock_clock.rate = 1.0
    return mock_clock
