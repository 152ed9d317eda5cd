"""A plain ZeroMQ producer: it knows nothing of Tidegate, only an address. Each message has two frames: a key and a body.

python push_producer.py [--push ADDRESS] [--key KEY] [--count N]

PUSH has no confirms: what the gateway has not read yet is not safe.
"""

import argparse
import os

import zmq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--push", default=os.environ.get("TIDEGATE_PULL", "tcp://127.0.0.1:5557"), help="a PULL socket's address")
    parser.add_argument("--key", default="zeromq.push.jobs")
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()

    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(options.push)
        for number in range(1, options.count + 1):
            socket.send_multipart([options.key.encode(), f"job {number}".encode()])
            print("sent job", number, flush=True)


if __name__ == "__main__":
    main()
