import pytest
import zmq


class Sockets:
    """A context that keeps its sockets until it is closed."""

    def __init__(self):
        self.context = zmq.Context()
        self.made = []

    def socket(self, kind):
        self.made.append(self.context.socket(kind))
        return self.made[-1]

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
