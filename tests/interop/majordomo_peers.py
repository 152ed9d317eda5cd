"""Majordomo's clients and workers as programs usually have them: they wait, poll, count their lives, and connect anew.

Written from RFC 7 and the Guide's description of the APIs; nothing here knows the gateway.

    python majordomo_peers.py ADDRESS SERVICE [HOLD_AFTER]

is a worker that answers with what it was asked; after HOLD_AFTER requests it says so, and answers none.
"""

from __future__ import annotations

import sys
import time

import zmq

CLIENT, WORKER = b"MDPC01", b"MDPW01"
READY, REQUEST, REPLY, HEARTBEAT, DISCONNECT = b"\1", b"\2", b"\3", b"\4", b"\5"


class Worker:
    """One thing at a time: while a request is worked on nothing is said."""

    def __init__(self, address: str, service: bytes, *, heartbeat_s: float = 2.5, lives: int = 3) -> None:
        self.context = zmq.Context()
        self.address = address
        self.service = service
        self.heartbeat_s = heartbeat_s
        self.all_lives = lives
        self.reply_to: bytes | None = None
        self.socket: zmq.Socket[bytes] | None = None
        self.connect()

    def connect(self) -> None:
        if self.socket is not None:
            self.socket.close(0)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(self.address)
        self.say(READY, self.service)
        self.lives = self.all_lives
        self.beat_at = time.monotonic() + self.heartbeat_s

    def say(self, *frames: bytes) -> None:
        self.socket.send_multipart([b"", WORKER, *frames])

    def next(self, reply: list[bytes] | None = None) -> list[bytes]:
        """Send the reply to the last request, if any, and return the next."""
        if reply is not None:
            self.say(REPLY, self.reply_to, b"", *reply)
        while True:
            if self.socket.poll(int(self.heartbeat_s * 1000)):
                empty, header, command, *rest = self.socket.recv_multipart()
                assert (empty, header) == (b"", WORKER)
                self.lives = self.all_lives
                if command == REQUEST:
                    self.reply_to, empty, *body = rest
                    assert empty == b""
                    return body
                if command == DISCONNECT:
                    self.connect()
                else:
                    assert command == HEARTBEAT
            else:
                self.lives -= 1
                if not self.lives:
                    time.sleep(self.heartbeat_s)
                    self.connect()
            if time.monotonic() > self.beat_at:
                self.say(HEARTBEAT)
                self.beat_at = time.monotonic() + self.heartbeat_s


class Client:
    """Asks again on a new REQ socket when no answer comes."""

    def __init__(self, address: str, *, patience_s: float = 2.5, retries: int = 3) -> None:
        self.context = zmq.Context()
        self.address = address
        self.patience_s = patience_s
        self.retries = retries
        self.socket: zmq.Socket[bytes] | None = None
        self.connect()

    def connect(self) -> None:
        if self.socket is not None:
            self.socket.close(0)
        self.socket = self.context.socket(zmq.REQ)
        self.socket.connect(self.address)

    def call(self, service: bytes, *body: bytes) -> list[bytes] | None:
        for _ in range(self.retries):
            self.socket.send_multipart([CLIENT, service, *body])
            if self.socket.poll(int(self.patience_s * 1000)):
                header, answered, *reply = self.socket.recv_multipart()
                assert (header, answered) == (CLIENT, service)
                return reply
            self.connect()
        return None

    def close(self) -> None:
        self.context.destroy(0)


class ManyRequests:
    """Asks without waiting for answers, on a DEALER socket."""

    def __init__(self, address: str, name: bytes | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        if name is not None:
            self.socket.setsockopt(zmq.ROUTING_ID, name)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(address)

    def ask(self, service: bytes, *body: bytes) -> None:
        self.socket.send_multipart([b"", CLIENT, service, *body])

    def answer(self, seconds: float = 60.0) -> list[bytes] | None:
        if not self.socket.poll(int(seconds * 1000)):
            return None
        empty, header, _, *reply = self.socket.recv_multipart()
        assert (empty, header) == (b"", CLIENT)
        return reply

    def close(self) -> None:
        self.context.destroy(0)


def main(address: str, service: str, hold_after: str = "") -> None:
    worker = Worker(address, service.encode())
    reply, count = None, 0
    while True:
        reply = worker.next(reply)
        count += 1
        if hold_after and count > int(hold_after):
            sys.stdout.write(f"holding {reply[0].decode()}\n")
            sys.stdout.flush()
            time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
