"""A worker that speaks plain ZeroMQ PULL and has never heard of MQTT.

python worker.py [--pull ADDRESS] [--count N]
"""

import argparse
import os

import zmq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pull", default=os.environ.get("TIDEGATE_PUSH", "tcp://127.0.0.1:5560"))
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(options.pull)
        received = 0
        while options.count == 0 or received < options.count:
            key, body = socket.recv_multipart()
            received += 1
            print(f"{key.decode()}: {body.decode()}", flush=True)


if __name__ == "__main__":
    main()
