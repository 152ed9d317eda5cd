"""A worker as anybody would write it with pyzmq: it says on standard output that it is ready, and of each message that it is done.

python bench/load/zmqworkers.py pull ADDRESS [--rcvhwm N] [--stall N]     a plain PULL socket
python bench/load/zmqworkers.py tgp ADDRESS [--hold]                      gateway.client, which acknowledges
python bench/load/zmqworkers.py mdp ADDRESS                               a worker of Majordomo 0.1
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # bench/load

import argparse
import os
import time

import zmq

WORK_S = 0.000_1
READY = b"ready\n"


def done(body: bytes) -> None:
    time.sleep(WORK_S)
    os.write(1, body + b"\n")


def pull(options: argparse.Namespace) -> None:
    socket = zmq.Context().socket(zmq.PULL)
    if options.rcvhwm:
        socket.setsockopt(zmq.RCVHWM, options.rcvhwm)
    socket.connect(options.address)
    os.write(1, READY)
    count = 0
    while True:
        done(socket.recv())
        count += 1
        if count == options.stall:
            time.sleep(60)


def tgp(options: argparse.Namespace) -> None:
    from gateway.client import connect

    with connect(options.address) as client:
        consumer = client.consume("bench", credit=1 if options.hold else 100)
        os.write(1, READY)
        for delivery in consumer:
            done(delivery.body)
            if options.hold:
                time.sleep(60)
            delivery.ack()


def mdp(options: argparse.Namespace) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(options.address)
    socket.send_multipart([b"", b"MDPW01", b"\1", b"bench"])
    os.write(1, READY)
    while True:
        _, _, command, *rest = socket.recv_multipart()
        if command == b"\2":
            client, _, body = rest
            done(body)
            socket.send_multipart([b"", b"MDPW01", b"\3", client, b"", body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["pull", "tgp", "mdp"])
    parser.add_argument("address")
    parser.add_argument("--rcvhwm", type=int, default=0)
    parser.add_argument("--stall", type=int, default=0)
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    {"pull": pull, "tgp": tgp, "mdp": mdp}[options.kind](options)


if __name__ == "__main__":
    main()
