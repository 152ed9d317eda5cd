"""The same jobs in memory with zmq.asyncio, as somebody would write them who knows it: what bench/zeromq.py compares with.

python bench/load/asyncio_gateway.py pipe ADDRESS ADDRESS      PULL to PUSH, without a queue in between
python bench/load/asyncio_gateway.py router ADDRESS            as much of TGP/1 as the load speaks: queues, credit, confirms, ACKs
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # bench/load

import asyncio  # noqa: TID251 - it is not the gateway
from collections import deque

import msgspec
import zmq
import zmq.asyncio

HELLO, READY, PUBLISH, CONFIRM, CONSUME, DELIVER, ACK, CREDIT, DECLARE, OK = 1, 2, 3, 4, 6, 8, 9, 11, 13, 20
NO_CONFIRM = 2

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


async def pipe(into: str, out_of: str) -> None:
    context = zmq.asyncio.Context()
    near, far = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    near.bind(into)
    far.bind(out_of)
    while True:
        await far.send_multipart(await near.recv_multipart())


class Consumer:
    def __init__(self, peer: bytes, tag: str, credit: int, *, no_ack: bool) -> None:
        self.peer = peer
        self.tag = tag
        self.credit = credit
        self.no_ack = no_ack
        self.last = 0
        self.unacked: deque[tuple[int, str, str, bytes]] = deque()


class Queue:
    def __init__(self) -> None:
        self.messages: deque[tuple[str, str, bytes]] = deque()
        self.consumer: Consumer | None = None


class Gateway:
    """Queues by name, each with one consumer; what a consumer was sent is kept until it is acknowledged."""

    def __init__(self, address: str) -> None:
        self.socket = zmq.asyncio.Context().socket(zmq.ROUTER)
        self.socket.bind(address)
        self.queues: dict[str, Queue] = {}
        self.by_peer: dict[bytes, Queue] = {}

    async def run(self) -> None:
        while True:
            peer, header, *rest = await self.socket.recv_multipart()
            await self.hear(peer, unpack(header), rest[0] if rest else b"")

    async def say(self, peer: bytes, *fields: object) -> None:
        await self.socket.send_multipart([peer, pack(fields)])

    async def hear(self, peer: bytes, said: list, body: bytes) -> None:
        match said:
            case [1, r, *_]:
                await self.say(peer, READY, r, 1, {})
            case [3, seq, exchange, key, _, flags]:
                queue = self.queues[key]
                queue.messages.append((exchange, key, body))
                if not flags & NO_CONFIRM:
                    await self.say(peer, CONFIRM, seq, False, 0)
                await self.hand(queue)
            case [9, _, number, multiple]:
                self.settle(self.by_peer[peer], number, multiple)
                await self.hand(self.by_peer[peer])
            case [11, _, delta]:
                self.by_peer[peer].consumer.credit += delta
                await self.hand(self.by_peer[peer])
            case [13, r, _, name, *_]:
                self.queues.setdefault(name, Queue())
                await self.say(peer, OK, r)
            case [6, r, name, tag, credit, *options]:
                queue = self.by_peer[peer] = self.queues[name]
                queue.consumer = Consumer(peer, tag, credit, no_ack=bool(options) and options[0].get("no_ack", False))
                await self.say(peer, OK, r)
                await self.hand(queue)

    async def hand(self, queue: Queue) -> None:
        consumer = queue.consumer
        while queue.messages and consumer is not None and consumer.credit:
            exchange, key, body = queue.messages.popleft()
            consumer.credit -= 1
            consumer.last += 1
            if not consumer.no_ack:
                consumer.unacked.append((consumer.last, exchange, key, body))
            number = 0 if consumer.no_ack else consumer.last
            await self.socket.send_multipart(
                [consumer.peer, pack((DELIVER, consumer.tag, number, False, exchange, key, None)), body]
            )

    def settle(self, queue: Queue, number: int, multiple: bool) -> None:
        consumer = queue.consumer
        unacked = consumer.unacked
        if multiple or unacked[0][0] == number:
            while unacked and unacked[0][0] <= number:
                unacked.popleft()
                consumer.credit += 1
        else:
            unacked.remove(next(entry for entry in unacked if entry[0] == number))
            consumer.credit += 1


def main() -> None:
    mode, *addresses = sys.argv[1:]
    asyncio.run(pipe(*addresses) if mode == "pipe" else Gateway(*addresses).run())


if __name__ == "__main__":
    main()
