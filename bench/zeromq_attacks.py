"""What do hostile peers of ZeroMQ endpoints do? Each attack goes on until it is ended.

Every attack gets the ports of the endpoints: ``router``, ``pull``, ``headers``, ``xpub``, ``pong``, ``rep``.
"""

from __future__ import annotations

import itertools
import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import zmq

Ports = dict[str, int]
pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def plain(kind: int, port: int, **options: Any) -> zmq.Socket[bytes]:
    """Return a socket that is connected."""
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    made.linger = 0
    for name, value in options.items():
        made.setsockopt(getattr(zmq, name), value)
    made.connect(f"tcp://127.0.0.1:{port}")
    return made


def ask(client: zmq.Socket[bytes], *fields: object, body: bytes | None = None) -> Any:
    """Say something in TGP/1, and return what is answered; PINGs are."""
    client.send_multipart([pack(fields)] if body is None else [pack(fields), body])
    while True:
        said = unpack(client.recv_multipart()[0])
        if said[0] != 22:
            return said
        client.send(pack([23, said[1]]))


def greeted(port: int, **options: Any) -> zmq.Socket[bytes]:
    """Return a TGP client."""
    client = plain(zmq.DEALER, port)
    ask(client, 1, 1, 1, options)
    return client


def met(port: int, kind: bytes) -> socket.socket:
    """Return a connection that has shaken hands as ZMTP 3.1 has it."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32))
    left = 64
    while left:
        left -= len(sock.recv(left))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack("!I", len(kind)) + kind
    sock.sendall(b"\x04" + bytes([len(ready)]) + ready)
    time.sleep(0.05)
    sock.recv(4_096)
    return sock


def read_all(client: zmq.Socket[bytes]) -> None:
    with suppress(zmq.Again):
        while True:
            client.recv_multipart(zmq.NOBLOCK)


def batches(ports: Ports) -> None:
    """BATCHes of 1,000 messages each"""
    client, header = greeted(ports["router"]), pack([25, 0, [[0, "", "no"]] * 1_000, 2])
    while True:
        client.send_multipart([header, b""])


def refusals(ports: Ports) -> None:
    """BATCHes of which every second message is refused"""
    for number in itertools.count():
        client = greeted(ports["router"], client=f"x{number}")
        for first in range(1, 40_000, 1_000):
            client.send_multipart([pack([25, first, [[0, "", ""], [0, "x", ""]] * 500, 0]), b""])
            read_all(client)
        client.close()


def properties(ports: Ports) -> None:
    """PUBLISH with 8,500 headers"""
    client, header = greeted(ports["router"]), pack([3, 0, "", "no", {"headers": {f"{n:x}": 1 for n in range(8_500)}}, 2])
    while True:
        client.send_multipart([header, b""])


def headers(ports: Ports) -> None:
    """Headers of 3 MiB, to a PULL endpoint"""
    pusher, frame = plain(zmq.PUSH, ports["headers"]), pack({f"{n:x}": 1 for n in range(500_000)})
    while True:
        pusher.send_multipart([b"k", frame, b""])


def keys(ports: Ports) -> None:
    """Ever new keys of 65,000 bytes, to a PULL endpoint"""
    pusher = plain(zmq.PUSH, ports["pull"])
    for number in itertools.count():
        pusher.send_multipart([b"%d" % number + b"k" * 65_000, b""])


def sessions(ports: Ports) -> None:
    """HELLO under ever new names, and one message for each"""
    client = plain(zmq.DEALER, ports["router"])
    for number in itertools.count():
        client.send(pack([1, 1, 1, {"client": f"n{number}"}]))
        client.send_multipart([pack([3, 1, "", "x"]), b""])
        read_all(client)


def services(ports: Ports) -> None:
    """Majordomo: READY for ever new services"""
    for rounds in itertools.count():
        worker = plain(zmq.DEALER, ports["router"])
        for number in range(50):
            worker.send_multipart([b"MDPW02", b"\1", b"s%d.%d" % (rounds, number)])
            worker.send_multipart([b"MDPW02", b"\6"])
        time.sleep(0.01)
        worker.close()


def demand(ports: Ports) -> None:
    """Majordomo: requests to ever new services"""
    client = plain(zmq.DEALER, ports["router"])
    for number in itertools.count():
        client.send_multipart([b"MDPC02", b"\1", b"s%d" % number, b"x"])


def patterns(ports: Ports) -> None:
    """100 bindings of 256 words, all wildcards, and ever new keys that match them"""
    client, chance = greeted(ports["router"]), random.Random(1)
    ask(client, 13, 1, "queue", "patterns", {"durable": False})
    for _ in range(100):
        ask(client, 15, 1, "patterns", "amq.topic", ".".join(["#", *chance.choices("a*", k=255)]))
    for number in itertools.count(1):
        ask(client, 3, number, "amq.topic", ".".join(["a"] * 254 + [str(number)]), {"delivery_mode": 1}, body=b"")


def deaf(ports: Ports) -> None:
    """A consumer without acknowledgements that reads nothing, and messages of 1 MiB for it"""
    reader, writer = plain(zmq.DEALER, ports["router"], RCVHWM=1), greeted(ports["router"])
    ask(reader, 1, 1, 1)
    ask(reader, 13, 1, "queue", "deaf", {"durable": False})
    ask(reader, 6, 1, "deaf", "t", 1_000, {"no_ack": True})
    for number in range(1, 400):
        ask(writer, 3, number, "", "deaf", {"delivery_mode": 1}, body=bytes(1 << 20))
    time.sleep(60)


def endless(ports: Ports) -> None:
    """A message of ever more frames that never ends: 400 MiB in all"""
    sock = met(ports["router"], b"DEALER")
    for _ in range(400):
        sock.sendall(b"\x03" + struct.pack("!Q", 1 << 20) + bytes(1 << 20))
    time.sleep(60)


def silent(ports: Ports) -> None:
    """5,000 connections to a ROUTER endpoint that say nothing"""
    _silent(ports["router"])


def silent_workers(ports: Ports) -> None:
    """5,000 connections that say nothing to a PUSH endpoint with ack = "pong" """
    _silent(ports["pong"])


def _silent(port: int) -> None:
    held = []
    for number in range(5_000):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        held.append(sock)
        if not number % 100:
            time.sleep(0.02)
    time.sleep(60)


def pings(ports: Ports) -> None:
    """20 PULL peers that send PINGs without a pause, and come back when they are sent away"""
    _flood(ports["pong"], b"\x04\x07\x04PING\0\0" * 7_000)


def commands(ports: Ports) -> None:
    """20 PULL peers that send unknown commands likewise"""
    _flood(ports["pong"], b"\x04\x02\x01A" * 16_000)


def _flood(port: int, data: bytes) -> None:
    peers = [met(port, b"PULL") for _ in range(20)]
    while True:
        for place, peer in enumerate(peers):
            peer.setblocking(False)
            try:
                peer.send(data)
            except BlockingIOError:
                pass
            except OSError:
                with suppress(OSError):
                    peers[place] = met(port, b"PULL")


def subscriptions(ports: Ports) -> None:
    """A million subscriptions"""
    sock = met(ports["xpub"], b"SUB")
    for first in range(0, 1_000_000, 5_000):
        sock.sendall(b"".join(b"\0\x09\1%08d" % number for number in range(first, first + 5_000)))
    time.sleep(60)


def unsubscriptions(ports: Ports) -> None:
    """Subscriptions that are given up and were never there"""
    sock, data = met(ports["xpub"], b"SUB"), b"".join(b"\0\x09\0%08d" % number for number in range(5_000))
    while True:
        sock.sendall(data)


def last_values(ports: Ports) -> None:
    """10,000 retained values, and a subscriber that comes anew 20 times a second"""
    client = greeted(ports["router"])
    for number in range(10_000):
        client.send_multipart([pack([3, 0, "amq.topic", f"v.{number}", {"headers": {"x-retain": True}}, 2]), bytes(50)])
    while True:
        subscriber = plain(zmq.SUB, ports["xpub"], SUBSCRIBE=b"")
        time.sleep(0.05)
        subscriber.close()


def questions(ports: Ports) -> None:
    """REQ clients' questions that nobody answers"""
    asker = plain(zmq.DEALER, ports["rep"])
    while True:
        asker.send_multipart([b"", b"?"])


def frames(ports: Ports) -> None:
    """Messages of 1,000 frames, to a REP endpoint"""
    asker = plain(zmq.DEALER, ports["rep"])
    while True:
        asker.send_multipart([b"x"] * 1_000)


ATTACKS: list[Callable[[Ports], None]] = [
    batches,
    refusals,
    properties,
    headers,
    keys,
    sessions,
    services,
    demand,
    patterns,
    deaf,
    endless,
    silent,
    silent_workers,
    pings,
    commands,
    subscriptions,
    unsubscriptions,
    last_values,
    questions,
    frames,
]
