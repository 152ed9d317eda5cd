"""The load of zmqflood.c (pipe and tgp) where there is no compiler: slower than a gateway in C, so ratios to one say less."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator

sys.path.pop(0)  # bench/load

import msgspec
import zmq

TURN = 256
STUCK_S = 10.0


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Clock:
    """When to begin, and when to end?"""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.first = self.begun = 0.0
        self.used = 0.0
        self.count = self.last = 0
        self.moved = time.monotonic()

    def over(self, count: int) -> bool:
        now = time.monotonic()
        if count != self.last:
            self.moved, self.last = now, count
            self.first = self.first or now
        elif now - self.moved > STUCK_S:
            raise SystemExit("nothing comes through")
        if not self.first:
            return False
        if not self.begun:
            if now - self.first >= self.options.warm:
                print("begin", flush=True)
                self.begun, self.used, self.count = time.monotonic(), _used(), count
            return False
        seconds = now - self.begun
        if seconds < self.options.seconds:
            return False
        count -= self.count
        told = {
            "count": count,
            "seconds": seconds,
            "rate": count / seconds,
            "busy": (_used() - self.used) / seconds,
            "load": "Python",
        }
        print(json.dumps(told), flush=True)
        return True


def pipe(options: argparse.Namespace, clock: Clock) -> None:
    context = zmq.Context()
    pulls = [context.socket(zmq.PULL) for _ in range(options.peers)]
    pushes = [context.socket(zmq.PUSH) for _ in range(options.peers)]
    poller = zmq.Poller()
    for socket in pulls:
        socket.connect(options.out)
        poller.register(socket, zmq.POLLIN)
    for socket in pushes:
        socket.connect(options.into)
    frames = [b"a.b", b"x" * options.size][-options.frames :]
    window = options.window or 20_000
    sent = got = 0
    while not clock.over(got):
        for socket in pushes:
            sent += _push(socket, frames, min(TURN // options.peers + 1, window - sent + got))
        for socket, _ in poller.poll(1):
            got += sum(1 for _ in _taken(socket))
    context.destroy(linger=0)


def _push(socket: zmq.Socket[bytes], frames: list[bytes], most: int) -> int:
    for number in range(most):
        try:
            for frame in frames[:-1]:
                socket.send(frame, zmq.SNDMORE | zmq.NOBLOCK)
            socket.send(frames[-1], 1)
        except zmq.Again:
            return number
    return max(most, 0)


def _taken(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    try:
        for _ in range(TURN):
            yield socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return


class Tgp:
    """A DEALER that publishes with a window, and one that takes what was published."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.context = zmq.Context()
        self.consumer, self.publisher = self.hello(), self.hello()
        self.props = None if options.persistent else {"delivery_mode": 1}
        self.ask(self.consumer, 13, 2, "queue", "bench")
        self.ask(self.consumer, 6, 3, "bench", "c", options.credit, {"no_ack": options.flood})
        self.sent = self.sure = self.got = self.paid = 0

    def hello(self) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.connect(self.options.into)
        self.ask(socket, 1, 1, 1)
        return socket

    def say(self, socket: zmq.Socket[bytes], *fields: object, body: bytes | None = None) -> None:
        header = msgspec.msgpack.encode(fields)
        socket.send_multipart([header] if body is None else [header, body])

    def ask(self, socket: zmq.Socket[bytes], *fields: object) -> None:
        self.say(socket, *fields)
        told = msgspec.msgpack.decode(socket.recv_multipart()[0])
        if told[0] not in (2, 20):
            raise SystemExit(f"refused: {told}")

    @property
    def back(self) -> int:
        return self.got if self.options.flood else min(self.got, self.sure)

    def publish(self) -> None:
        flags, body, batch = 2 if self.options.flood else 0, b"x" * self.options.size, self.options.batch
        if batch:
            self.say(self.publisher, 25, self.sent + 1, [(len(body), "", "bench", self.props)] * batch, flags, body=body * batch)
        else:
            self.say(self.publisher, 3, self.sent + 1, "", "bench", self.props, flags, body=body)
        self.sent += batch or 1

    def take(self) -> None:
        last = 0
        for header, *_ in _taken(self.consumer):
            said = msgspec.msgpack.decode(header)
            if said[0] == 8:
                self.got += 1
                last = said[2]
                if self.options.each:
                    self.say(self.consumer, 9, "c", last, False)
        if last and not self.options.each and not self.options.flood:
            self.say(self.consumer, 9, "c", last, True)
        if self.options.flood and self.got - self.paid >= self.options.credit // 4:
            self.say(self.consumer, 11, "c", self.got - self.paid)
            self.paid = self.got
        for header, *_ in _taken(self.publisher):
            said = msgspec.msgpack.decode(header)
            if said[0] == 4:
                self.sure = max(self.sure, said[1])


def tgp(options: argparse.Namespace, clock: Clock) -> None:
    load = Tgp(options)
    while not clock.over(load.back):
        while load.sent - load.back + (options.batch or 1) <= (options.window or 1_000):
            load.publish()
        zmq.select([load.consumer, load.publisher], [], [], 0.1)
        load.take()
    load.context.destroy(linger=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["pipe", "tgp"])
    parser.add_argument("--into")
    parser.add_argument("--out")
    for name, value in (("peers", 1), ("frames", 1), ("size", 100), ("window", 0), ("batch", 0), ("credit", 1_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm", type=float, default=0.5)
    for name in ("flood", "each", "persistent"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    {"pipe": pipe, "tgp": tgp}[options.mode](options, Clock(options))


if __name__ == "__main__":
    main()
