import threading

import pytest
import zmq

from trio_zmq import Context


class Sockets:
    """A plain pyzmq context that keeps its sockets until it is closed."""

    def __init__(self):
        self.context = zmq.Context()
        self.made = []
        self._ending = None

    def socket(self, kind):
        self.made.append(self.context.socket(kind))
        return self.made[-1]

    def term(self):
        self.context.term()

    def begin_to_end(self):
        """Terminate it, in a thread: that waits until all sockets are closed."""
        self._ending = threading.Thread(target=self.context.term, daemon=True)
        self._ending.start()

    def close(self):
        for socket in self.made:
            socket.close(0)
        if self._ending is None:
            self.context.term()
        else:
            self._ending.join(30)
            assert not self._ending.is_alive()


@pytest.fixture
def context():
    sockets = Sockets()
    yield sockets
    sockets.close()


@pytest.fixture
async def sockets():
    """A context of the package, inside trio; it must end at once, with nothing left behind."""
    async with Context(linger_ms=0) as context:
        yield context


@pytest.fixture(params=["tcp", "inproc", "ipc"])
def address(request, tmp_path):
    """Where to bind; read the real address back with LAST_ENDPOINT."""
    return {"tcp": "tcp://127.0.0.1:*", "inproc": "inproc://test", "ipc": f"ipc://{tmp_path}/s"}[request.param]
