"""A plain ZeroMQ consumer: it knows nothing of Tidegate, only an address.

python pull_consumer.py [--pull ADDRESS] [--count N]

PULL has no acknowledgements: what the gateway has handed to the socket, it has forgotten.
"""

import argparse
import os

import zmq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pull", default=os.environ.get("TIDEGATE_PUSH", "tcp://127.0.0.1:5558"), help="a PUSH socket's address")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(options.pull)
        received = 0
        while options.count == 0 or received < options.count:
            frames = socket.recv_multipart()
            received += 1
            print("received", frames[-1].decode(), flush=True)


if __name__ == "__main__":
    main()
