"""A gateway's TGP/1 endpoint without a gateway: queues are deques, "on disk" is a dictionary that outlives `kill`."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec
import zmq

from tests.ports import free_port

(HELLO, READY, PUBLISH, CONFIRM, RETURN, CONSUME, CANCEL, DELIVER, ACK, NACK, CREDIT, GET, DECLARE, DELETE, BIND, UNBIND, PURGE,
 EMPTY, GOT, OK, ERROR, PING, PONG, BYE) = range(1, 25)  # fmt: skip
BATCH, EXTEND, UNSCHEDULE = 25, 26, 27

encode = msgspec.msgpack.encode


@dataclass
class Stored:
    position: int
    exchange: str
    key: str
    props: Any
    body: bytes
    redelivered: bool = False


@dataclass
class Taker:
    queue: str
    credit: int
    no_ack: bool = False
    cancelled: bool = False
    unacked: dict[int, Stored] = field(default_factory=dict)


@dataclass
class Peer:
    name: str
    takers: dict[str, Taker] = field(default_factory=dict)


@dataclass
class Disk:
    """What outlives a kill: queues, bindings, sequence marks by client name."""

    queues: dict[str, deque[Stored]] = field(default_factory=dict)
    bindings: list[tuple[str, str, str]] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)


class FakeRouter:
    """Start it with ``with``; `kill` and `start` as often as wanted, always on the same port.

    Args (attributes that a test sets):
        full: names of queues that refuse.
        refused: what READY says of a client's refused messages.
        deaf: it reads, and answers nothing.
        hold_confirms: publishes are stored, but their confirms wait.
        caps: what READY says that it can do.
    """

    def __init__(self, heartbeat_ms: int = 5000) -> None:
        self.disk = Disk()
        self.heard: list[list[Any]] = []
        self.full: set[str] = set()
        self.refused: dict[str, list[tuple[int, int, int]]] = {}
        self.deaf = False
        self.hold_confirms = False
        self.caps: list[str] = []
        self.heartbeat_ms = heartbeat_ms
        self.port = free_port()
        self._context = zmq.Context()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._todo: deque[Any] = deque()
        self._numbers = itertools.count(1)

    # -- life

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        started = threading.Event()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(60)

    def kill(self) -> None:
        """Go as a killed process goes: no goodbye, what was unsettled is in its queue again, sessions are forgotten."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def do(self, action: Any) -> None:
        """Run `action(router)` in the router's thread, and wait until it has run."""
        done = threading.Event()
        self._todo.append((action, done))
        assert done.wait(60)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._context.destroy(linger=0)

    def _run(self, started: threading.Event) -> None:
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # a ROUTER drops what there is no room for, and says nothing
        self._bind()
        self.peers: dict[bytes, Peer] = {}
        self.sessions: dict[str, str] = {}
        self._held: dict[bytes, int] = {}
        started.set()
        while not self._stop.is_set():
            if self.socket.poll(2):
                self._hear(*self.socket.recv_multipart())
            while self._todo:
                action, done = self._todo.popleft()
                action(self)
                done.set()
        for identity in list(self.peers):
            self._drop(identity)
        self.socket.close(0)

    def _bind(self) -> None:
        deadline = time.monotonic() + 30
        while not self._bound() and time.monotonic() < deadline:  # libzmq closes the old socket in a thread of its own
            self._stop.wait(0.005)

    def _bound(self) -> bool:
        try:
            self.socket.bind(f"tcp://127.0.0.1:{self.port}")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            return False
        return True

    def _drop(self, identity: bytes) -> None:
        for taker in self.peers.pop(identity).takers.values():
            self._give_back(taker, list(taker.unacked))

    # -- the table

    def say(self, identity: bytes, *fields: Any, body: bytes | None = None) -> None:
        self.socket.send_multipart([identity, encode(fields)] + ([] if body is None else [body]))

    def _hear(self, identity: bytes, header: bytes, body: bytes = b"") -> None:
        command, *fields = msgspec.msgpack.decode(header)
        self.heard.append([command, *fields])
        if self.deaf:
            return
        if command == HELLO:
            self._hello(identity, *fields)
        elif identity not in self.peers:
            self.say(identity, ERROR, None, 401, "HELLO first", command)
        elif command in (PUBLISH, BATCH):
            (self._publish if command == PUBLISH else self._batch)(identity, body, *fields)
        elif command == PING:
            self.say(identity, PONG, *fields)
        elif command == BYE:
            self._drop(identity)
        elif command in (ACK, NACK):
            self._settle(identity, command, *fields)
        elif command == CREDIT:
            self.peers[identity].takers[fields[0]].credit += fields[1]
        elif command not in (PONG, EXTEND):
            self._ask(identity, command, *fields)
        self.deliver()

    def _hello(self, identity: bytes, r: int, _version_max: int, options: dict[str, Any]) -> None:
        for old, peer in list(self.peers.items()):
            if peer.name and peer.name == options.get("client"):
                self._drop(old)
        token = options.get("session") or ""
        resumed = token in self.sessions
        name = options.get("client") or (self.sessions[token] if resumed else f"anonymous-{len(self.heard)}")
        token = token if resumed else f"s{len(self.sessions)}-{next(self._numbers)}"
        self.sessions[token] = name
        self.peers[identity] = Peer(name)
        ready = {"session": token, "resumed": resumed, "heartbeat_ms": self.heartbeat_ms, "last_seq": self.disk.marks.get(name, 0)}
        self.say(identity, READY, r, 1, {**ready, "caps": self.caps, "refused": self.refused.get(name, [])})

    def _publish(self, identity: bytes, body: bytes, seq: int, exchange: str, key: str, props: Any = None, flags: int = 0) -> None:
        name = self.peers[identity].name
        if seq > self.disk.marks.get(name, 0):
            queues = [q for q, e, k in self.disk.bindings if e == exchange and k in (key, "#")]
            if exchange == "" and key in self.disk.queues:
                queues = [key]
            if self.full.intersection(queues):
                self.say(identity, CONFIRM, seq, False, 506)
                return
            for queue in queues:
                self.disk.queues[queue].append(Stored(next(self._numbers), exchange, key, props, body))
            self.disk.marks[name] = seq
            if not queues and flags & 1:
                self.say(identity, RETURN, seq, 312, exchange, key, body=body)
        if self.hold_confirms:
            self._held[identity] = seq
        else:
            self.say(identity, CONFIRM, seq, True, 0)

    def _batch(self, identity: bytes, body: bytes, seq: int, parts: list[list[Any]], flags: int = 0) -> None:
        assert sum(part[0] for part in parts) == len(body)
        for number, (size, *message) in enumerate(parts, seq):
            self._publish(identity, body[:size], number, *message, flags=flags)
            body = body[size:]

    def release_confirms(self) -> None:
        self.hold_confirms = False
        for identity, seq in self._held.items():
            self.say(identity, CONFIRM, seq, True, 0)

    def _ask(self, identity: bytes, command: int, r: int, *fields: Any) -> None:
        queue = fields[1] if command in (DECLARE, DELETE) else fields[0]
        needs_queue = command in (CONSUME, GET, BIND, UNBIND, PURGE) or (command == DELETE and fields[0] == "queue")
        if needs_queue and queue not in self.disk.queues:
            self.say(identity, ERROR, r, 404, f"no queue {queue!r}", command)
        elif command == GET:
            self._get(identity, r, *fields)
        else:
            self.say(identity, OK, r, self._do(identity, command, queue, fields))

    def _do(self, identity: bytes, command: int, queue: str, fields: tuple[Any, ...]) -> dict[str, Any]:
        disk, takers = self.disk, self.peers[identity].takers
        if command == DECLARE and fields[0] == "queue":
            queue = queue or f"amq.gen-{next(self._numbers)}"
            return {"name": queue, "messages": len(disk.queues.setdefault(queue, deque())), "consumers": 0}
        if command == CONSUME:
            takers[fields[1]] = Taker(queue, fields[2], no_ack=bool(fields[3].get("no_ack")))
        elif command == CANCEL:
            takers[fields[0]].cancelled = True
        elif command == BIND:
            disk.bindings.append((queue, fields[1], fields[2]))
        elif command == UNBIND:
            disk.bindings.remove((queue, fields[1], fields[2]))
        elif command == PURGE:
            count = len(disk.queues[queue])
            disk.queues[queue].clear()
            return {"messages": count}
        elif command == DELETE and fields[0] == "queue":
            self._delete_queue(queue)
        return {}

    def _delete_queue(self, queue: str) -> None:
        del self.disk.queues[queue]
        for identity, peer in self.peers.items():
            for tag in [tag for tag, taker in peer.takers.items() if taker.queue == queue]:
                del peer.takers[tag]
                self.say(identity, CANCEL, 0, tag)

    def _get(self, identity: bytes, r: int, queue: str, no_ack: bool = False) -> None:
        if not self.disk.queues[queue]:
            self.say(identity, EMPTY, r)
            return
        message, number = self.disk.queues[queue].popleft(), next(self._numbers)
        if not no_ack:
            self.peers[identity].takers.setdefault("", Taker(queue, 0)).unacked[number] = message
        self.say(identity, GOT, r, number, message.redelivered, message.exchange, message.key, message.props, body=message.body)

    def _settle(
        self,
        identity: bytes,
        command: int,
        tag: str,
        number: int,
        multiple: bool = False,
        requeue: bool = False,
        _delay_ms: int = 0,
    ) -> None:
        taker = self.peers[identity].takers.get(tag)
        if taker is None or number not in taker.unacked:
            self.say(identity, ERROR, None, 404, f"no delivery {number}", command)
            return
        numbers = [n for n in taker.unacked if n == number or (multiple and n < number)]
        if tag:  # what GET brought is no consumer's
            taker.credit += len(numbers)
        if command == NACK and requeue:
            self._give_back(taker, numbers)
        for n in numbers:
            taker.unacked.pop(n, None)

    def _give_back(self, taker: Taker, numbers: list[int]) -> None:
        queue = self.disk.queues.get(taker.queue, deque())
        for n in numbers:
            message = taker.unacked.pop(n)
            message.redelivered = True
            queue.insert(sum(other.position < message.position for other in queue), message)

    def deliver(self) -> None:
        for identity, peer in self.peers.items():
            for tag, taker in peer.takers.items():
                while taker.credit > 0 and not taker.cancelled and self.disk.queues.get(taker.queue):
                    message, number = self.disk.queues[taker.queue].popleft(), next(self._numbers)
                    taker.credit -= 1
                    if not taker.no_ack:
                        taker.unacked[number] = message
                    fields = (tag, number, message.redelivered, message.exchange, message.key, message.props)
                    self.say(identity, DELIVER, *fields, body=message.body)
