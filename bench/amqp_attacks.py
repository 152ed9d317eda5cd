"""What do hostile AMQP clients do? Each attack gets the broker's port, and goes on until it is ended."""

from __future__ import annotations

import itertools
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from pamqp import commands
from pamqp.base import Frame

from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.names import BASIC_PUBLISH, CONNECTION_START_OK, QUEUE_DECLARE

HEADER = b"AMQP\x00\x00\x09\x01"
FRAME_MAX = 131_072
MiB = 1 << 20
PERSISTENT = b"\x10\x00\x02"
TRANSIENT = b"\x10\x00\x01"
OPEN_OK = b"\x00\x0a\x00\x29"
CHANNEL_OPEN_OK = b"\x00\x14\x00\x0b"
Attack = Callable[[int], None]

Basic, Channel, Connection, Exchange, Queue = (
    commands.Basic, commands.Channel, commands.Connection, commands.Exchange, commands.Queue,
)  # fmt: skip


# -- what is said --------------------------------------------------------------


def framed(kind: int, number: int, payload: bytes) -> bytes:
    return struct.pack("!BHI", kind, number, len(payload)) + payload + b"\xce"


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(*fields: bytes) -> bytes:
    data = b"".join(fields)
    return struct.pack("!I", len(data)) + data


def publish(
    key: bytes, body: bytes, *, exchange: bytes = b"", properties: bytes = TRANSIENT, bits: int = 0, number: int = 1
) -> bytes:
    method = struct.pack("!IH", BASIC_PUBLISH, 0) + short(exchange) + short(key) + bytes([bits])
    parts = [framed(1, number, method), framed(2, number, struct.pack("!HHQ", 60, 0, len(body)) + properties)]
    room = FRAME_MAX - 8
    parts += [framed(3, number, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join(parts)


def with_headers(fields: bytes) -> bytes:
    """Return properties that are headers and nothing else; `fields`: the table, its length included."""
    return b"\x20\x00" + fields


def login(user: str = "guest", password: str = "guest") -> bytes:
    return encode(0, Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}", "en_US"))


def tuned(channels: int = 2_047, heartbeat_s: int = 0) -> bytes:
    return encode(0, Connection.TuneOk(channels, FRAME_MAX, heartbeat_s)) + encode(0, Connection.Open("/"))


# -- how it is said ------------------------------------------------------------


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def opened(port: int, *, channels: Iterable[int] = (1,), heartbeat_s: int = 0) -> socket.socket:
    """Return a connection, with channels open on it, of which all answers are read."""
    sock = connected(port)
    numbers = list(channels)
    sock.sendall(HEADER + login() + tuned(heartbeat_s=heartbeat_s) + b"".join(encode(n, Channel.Open()) for n in numbers))
    await_(sock, CHANNEL_OPEN_OK if numbers else OPEN_OK, max(len(numbers), 1))
    return sock


def await_(sock: socket.socket, wanted: bytes, count: int = 1) -> None:
    """Read until something has come so many times."""
    data = b""
    while data.count(wanted) < count:
        more = sock.recv(MiB)
        assert more, "the broker has closed the connection"
        data += more


def said(sock: socket.socket, *methods: Frame, number: int = 1) -> None:
    sock.sendall(b"".join(encode(number, method) for method in methods))


def drained(sock: socket.socket) -> None:
    """Read what is there, and no more."""
    while select.select([sock], [], [], 0)[0]:
        if not sock.recv(MiB):
            raise OSError


def flooded(sock: socket.socket, data: bytes) -> None:
    """Say the same again and again, and read what is answered."""
    while True:
        sock.sendall(data)
        drained(sock)


def again(port: int, what: bytes) -> None:
    """Say something on ever new connections."""
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            sock.sendall(what)
            sock.settimeout(1)
            while sock.recv(MiB):
                pass


# -- before Connection.Open ------------------------------------------------------


def silent(port: int) -> None:
    """5,000 connections that never say anything, opened again as the broker closes them"""
    socks = [connected(port) for _ in range(5_000)]
    while True:
        for n in range(0, len(socks), 50):
            socks[n].close()
            socks[n] = connected(port)
        time.sleep(0.1)


def trickled(port: int) -> None:
    """200 connections whose StartOk comes byte by byte"""
    what = HEADER + login()
    while True:
        socks = [connected(port) for _ in range(200)]
        for byte in what:
            for sock in socks:
                sock.send(bytes([byte]))


def headers_wrong(port: int) -> None:
    """Protocol headers of something else"""
    while True:
        with connected(port) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(100)


def storm(port: int) -> None:
    """Connects and leaves as fast as it can"""
    while True:
        with opened(port):
            pass


def passwords(port: int) -> None:
    """Wrong passwords, as fast as they are refused"""
    while True:
        with connected(port) as sock:
            sock.sendall(HEADER + login("admin", "wrong"))
            while sock.recv(MiB):
                pass


def logins(port: int) -> None:
    """StartOk with 2,700 fields and tables within tables, on ever new connections"""
    fields = b"".join(short(b"%x" % n) + b"V" for n in range(1_000)) + deepest(30)
    start_ok = struct.pack("!I", CONNECTION_START_OK) + table(fields) + short(b"PLAIN") + table(b"\0guest\0guest") + short(b"en")
    while True:
        with connected(port) as sock:
            sock.sendall(HEADER + framed(1, 0, start_ok) + tuned())
            await_(sock, OPEN_OK)


def deepest(depth: int) -> bytes:
    """Return a field that is a table in which there is one, and so on."""
    field = b"\1xF" + table()
    for _ in range(depth):
        field = b"\1xF" + table(field)
    return field


# -- frames -------------------------------------------------------------------------


def half(port: int) -> None:
    """Messages of 100 MB that are never finished, as many as are let in"""
    began = framed(1, 1, struct.pack("!IH", BASIC_PUBLISH, 0) + b"\0\1x\0")
    began += framed(2, 1, struct.pack("!HHQ", 60, 0, 100_000_000) + TRANSIENT)
    part = framed(3, 1, bytes(FRAME_MAX - 8))
    socks: list[socket.socket] = []
    while True:
        with suppress(OSError, AssertionError):
            sock = opened(port)
            sock.sendall(began)
            for _ in range(700):
                sock.sendall(part)
            socks.append(sock)


def pieces(port: int) -> None:
    """50 connections that send a frame of 128 KiB two bytes at a time"""
    socks = [opened(port) for _ in range(50)]
    for sock in socks:
        sock.sendall(struct.pack("!BHI", 1, 1, FRAME_MAX - 8))
    while True:
        for sock in socks:
            sock.send(b"xx")


def empty_parts(port: int) -> None:
    """A message of ever more body frames without a byte"""
    sock = opened(port)
    sock.sendall(framed(1, 1, struct.pack("!IH", BASIC_PUBLISH, 0) + b"\0\1x\0"))
    sock.sendall(framed(2, 1, struct.pack("!HHQ", 60, 0, 10) + TRANSIENT))
    flooded(sock, framed(3, 1, b"") * 8_000)


def too_long(port: int) -> None:
    """Frames beyond frame_max, on ever new connections"""
    again(port, struct.pack("!BHI", 1, 1, 0xFFFFFFFF) + bytes(1_000))


def garbage(port: int) -> None:
    """Random bytes, and random methods with random arguments, on ever new connections"""
    chance = random.Random(1)
    kinds = [10, 20, 40, 50, 60, 85, 90]
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            for _ in range(200):
                method = struct.pack("!HH", chance.choice(kinds), chance.randrange(130)) + chance.randbytes(chance.randrange(40))
                sock.sendall(framed(1, chance.randrange(3), method))
                drained(sock)


def unanswered(port: int) -> None:
    """Channel errors whose Close is never answered, on all channels, and on ever new connections"""
    while True:
        with suppress(OSError, AssertionError):
            sock = opened(port, channels=range(1, 2_048))
            for number in range(1, 2_048):
                said(sock, Basic.Ack(9), number=number)
            drained(sock)


def goes_on(port: int) -> None:
    """Clients that close their connection and go on sending"""
    noise = encode(0, Connection.Close(200, "", 0, 0)) + encode(1, Queue.Declare(queue="x")) * 2_000
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            while True:
                sock.sendall(noise)


def half_closed(port: int) -> None:
    """1,000 connections that close their own half and stay"""
    socks = []
    while True:
        for _ in range(1_000):
            sock = opened(port)
            sock.shutdown(socket.SHUT_WR)
            socks.append(sock)
        socks.clear()


# -- tables ---------------------------------------------------------------------------


def declared_with(fields: bytes) -> bytes:
    return framed(1, 1, struct.pack("!IH", QUEUE_DECLARE, 0) + short(b"same") + b"\0" + fields)


def tables(port: int) -> None:
    """Declarations with 4,000 arguments"""
    flooded(opened(port), declared_with(table(b"".join(short(b"%x" % n) + b"V" for n in range(4_000)))))


def arrays(port: int) -> None:
    """Declarations with an array of 32,000 values that are nothing"""
    flooded(opened(port), declared_with(table(b"\1xA" + table(b"V" * 32_000))))


def deep(port: int) -> None:
    """Tables as deep as they may be, thousands in each frame"""
    fields = table(deepest(29) * 480)
    flooded(opened(port), publish(b"nobody", b"", properties=with_headers(fields)))


def properties(port: int) -> None:
    """Messages with 64,000 headers of two bytes each"""
    flooded(opened(port), publish(b"nobody", b"x", properties=with_headers(table(b"\0V" * 64_000))))


def copies(port: int) -> None:
    """Messages with CC of 990 keys, other ones each time"""
    sock = opened(port)
    for number in itertools.count():
        keys = b"".join(b"S" + table(b"%d.%d" % (number, n)) for n in range(990))
        sock.sendall(publish(b"x", b"", exchange=b"amq.topic", properties=with_headers(table(b"\2CCA" + table(keys)))))
        drained(sock)


def copies_same(port: int) -> None:
    """Messages with CC of the same 990 keys each time"""
    keys = b"".join(b"S" + table(b"%d" % n) for n in range(990))
    what = publish(b"x", b"", exchange=b"amq.direct", properties=with_headers(table(b"\2CCA" + table(keys))))
    flooded(opened(port), what * 10)


# -- channels, declarations -------------------------------------------------------------


def channels(port: int) -> None:
    """Channel.Open and Channel.Close, 1,000 of each at a time"""
    pair = b"".join(encode(n, Channel.Open()) + encode(n, Channel.Close(200, "", 0, 0)) for n in range(1, 1_001))
    flooded(opened(port, channels=()), pair)


def channels_used(port: int) -> None:
    """Channels that are opened, publish, consume, and are closed"""
    one = b"".join(
        encode(n, Channel.Open()) + encode(n, commands.Confirm.Select()) + encode(n, Queue.Declare(queue="", exclusive=True))
        + encode(n, Basic.Consume(queue="")) + publish(b"nobody", b"x", number=n) + encode(n, Channel.Close(200, "", 0, 0))
        for n in range(1, 101)
    )  # fmt: skip
    flooded(opened(port, channels=()), one)


def queues(port: int) -> None:
    """Exclusive queues with names of the server's, and then the connection goes"""
    while True:
        with opened(port) as sock:
            began = time.monotonic()
            while time.monotonic() < began + 2:
                said(sock, *[Queue.Declare(queue="", exclusive=True)] * 500)
                drained(sock)


def durable_queues(port: int) -> None:
    """Durable queues, and then they are deleted"""
    sock = opened(port)
    for number in itertools.count():
        said(sock, *[Queue.Declare(queue=f"q{number}.{n}", durable=True) for n in range(500)])
        said(sock, *[Queue.Delete(queue=f"q{number}.{n}") for n in range(500)])
        drained(sock)


def bindings(port: int) -> None:
    """10,000 bindings of one queue; it is deleted, and again"""
    sock = opened(port)
    while True:
        said(sock, Queue.Declare(queue="bound"))
        for n in range(0, 10_000, 100):
            said(sock, *[Queue.Bind(queue="bound", exchange="amq.topic", routing_key=f"{k}.*") for k in range(n, n + 100)])
            drained(sock)
        said(sock, Queue.Delete(queue="bound"))
        await_(sock, b"\x00\x32\x00\x29")


def chains(port: int) -> None:
    """200 exchanges, each bound to the ten after it, and messages through all of them"""
    sock = opened(port)
    for n in range(200):
        said(sock, Exchange.Declare(exchange=f"e{n}", exchange_type="fanout"))
    for n in range(200):
        for other in range(n + 1, min(n + 11, 200)):
            said(sock, Exchange.Bind(destination=f"e{other}", source=f"e{n}"))
    drained(sock)
    for number in itertools.count():
        sock.sendall(b"".join(publish(b"%d.%d" % (number, n), b"", exchange=b"e0") for n in range(100)))
        drained(sock)


def patterns(port: int) -> None:
    """100 bindings of 127 words, all wildcards, and ever new keys that match them"""
    sock = opened(port)
    said(sock, Queue.Declare(queue="p", arguments={"x-max-length": 1}))
    for n in range(100):
        said(sock, Queue.Bind(queue="p", exchange="amq.topic", routing_key=".".join(["#", "*"] * 60 + [str(n)])))
    drained(sock)
    for number in itertools.count():
        sock.sendall(publish(b".".join([b"a"] * 110 + [b"%d" % number]), b"", exchange=b"amq.topic"))
        drained(sock)


def keys(port: int) -> None:
    """Ever new keys of 250 bytes"""
    sock = opened(port)
    for number in itertools.count():
        sock.sendall(b"".join(publish((b"%d.%d." % (number, n)).ljust(250, b"k"), b"x") for n in range(200)))
        drained(sock)


def matching(port: int) -> None:
    """A headers exchange with 2,000 bindings of 50 headers, and messages with 1,000 headers"""
    sock = opened(port)
    said(sock, Queue.Declare(queue="h", arguments={"x-max-length": 1}))
    for n in range(2_000):
        wanted = {f"h{k}": k for k in range(49)} | {"x-match": "all", "last": n}
        said(sock, Queue.Bind(queue="h", exchange="amq.headers", arguments=wanted))
        drained(sock)
    for number in itertools.count():
        fields = [short(b"h%d" % k) + b"I" + struct.pack("!i", k) for k in range(1_000)]
        fields.append(short(b"last") + b"I" + struct.pack("!i", -1 - number % 1_000_000))
        sock.sendall(publish(b"", b"", exchange=b"amq.headers", properties=with_headers(table(*fields))))
        drained(sock)


def log_lines(port: int) -> None:
    """Ever new arguments that mean nothing, and errors with control characters"""
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            for n in range(100):
                said(sock, Queue.Declare(queue="", exclusive=True, arguments={f"x-\x1b[31m\n{n}{'y' * 200}": n}))
            sock.sendall(framed(1, 1, struct.pack("!IH", QUEUE_DECLARE, 0) + short(b"\x1b[2J\r\nforged") + b"\1" + table()))
            await_(sock, b"\x00\x14\x00\x28")


# -- messages ---------------------------------------------------------------------------


def gets(port: int) -> None:
    """Basic.Get of messages of 1 MiB, thousands at once, that are not read"""
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            said(sock, Queue.Declare(queue="large", arguments={"x-max-length": 200}))
            for _ in range(200):
                sock.sendall(publish(b"large", bytes(MiB)))
            said(sock, *[Basic.Get(queue="large")] * 3_000)
            time.sleep(1)


def transactions(port: int) -> None:
    """Transactions of 100 MB that are never committed, as many as are let in"""
    socks: list[socket.socket] = []
    while True:
        with suppress(OSError, AssertionError):
            sock = opened(port)
            said(sock, commands.Tx.Select())
            for _ in range(100):
                sock.sendall(publish(b"x", bytes(MiB)))
            socks.append(sock)


def rollbacks(port: int) -> None:
    """100,000 unsettled deliveries, of which one is acknowledged and rolled back, again and again"""
    sock = filled(port, "r", 100_000)
    said(sock, commands.Tx.Select(), Basic.Consume(queue="r"))
    heard(sock)
    flooded(sock, (encode(1, Basic.Ack(1)) + encode(1, commands.Tx.Rollback())) * 500)


def filled(port: int, queue: str, count: int, body: bytes = b"x") -> socket.socket:
    """Return a connection, and a queue in which there are so many messages."""
    sock = opened(port)
    said(sock, Queue.Declare(queue=queue))
    what = publish(queue.encode(), body) * 1_000
    for _ in range(count // 1_000):
        sock.sendall(what)
    return sock


def heard(sock: socket.socket) -> None:
    """Read until nothing comes any more."""
    while select.select([sock], [], [], 0.5)[0]:
        if not sock.recv(MiB):
            raise OSError


def mandatory(port: int) -> None:
    """Mandatory messages of 1 MiB that go nowhere, and are not read"""
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            what = publish(b"nobody", bytes(MiB), bits=1)
            while True:
                sock.sendall(what)


def unacked(port: int) -> None:
    """200,000 unsettled deliveries of a client that goes and comes again"""
    filled(port, "u", 200_000).close()
    while True:
        with opened(port) as sock:
            said(sock, Basic.Consume(queue="u"))
            heard(sock)


def recovers(port: int) -> None:
    """20,000 unsettled deliveries that Basic.Recover puts back, and that come again, without an end"""
    sock = filled(port, "v", 20_000)
    said(sock, Basic.Consume(queue="v"))
    heard(sock)
    while True:
        said(sock, *[Basic.Recover(requeue=True)] * 100)
        for _ in range(100):
            sock.recv(MiB)


def nacks(port: int) -> None:
    """1,000 messages that come back to a consumer that gives all of them back"""
    sock = filled(port, "n", 1_000)
    said(sock, Basic.Consume(queue="n"))
    nack = encode(1, Basic.Nack(0, True, True))
    while True:
        sock.recv(MiB)
        sock.sendall(nack)


def consumers(port: int) -> None:
    """10,000 consumers of a queue with a global prefetch of 1, and messages for them"""
    sock = opened(port)
    said(sock, Queue.Declare(queue="c"), Basic.Qos(prefetch_count=1, global_=True))
    for n in range(0, 10_000, 500):
        said(sock, *[Basic.Consume(queue="c", consumer_tag=str(tag)) for tag in range(n, n + 500)])
        drained(sock)
    flooded(sock, publish(b"c", b"x") + encode(1, Basic.Ack(0, True)))


def consumers_coming(port: int) -> None:
    """Consumers that come and go"""
    sock = opened(port)
    said(sock, Queue.Declare(queue="c"))
    flooded(sock, (encode(1, Basic.Consume(queue="c", consumer_tag="t")) + encode(1, Basic.Cancel("t"))) * 500)


def deaf(port: int) -> None:
    """Consumers that never read, and messages of 64 KiB for them"""
    publisher = opened(port)
    said(publisher, Exchange.Declare(exchange="f", exchange_type="fanout"))
    socks = [opened(port) for _ in range(20)]
    for sock in socks:
        said(sock, Queue.Declare(queue="", exclusive=True, arguments={"x-max-length": 100}))
        said(sock, Queue.Bind(queue="", exchange="f"), Basic.Consume(queue="", no_ack=True))
    flooded(publisher, publish(b"", bytes(65_536), exchange=b"f"))


def asks(port: int) -> None:
    """Questions whose answers are not read: Channel.Flow, passive declarations, Basic.Get of nothing"""
    what = (
        encode(1, Channel.Flow(True)) + encode(1, Queue.Declare(queue="q", passive=True)) + encode(1, Basic.Get(queue="q"))
    ) * 100
    while True:
        with suppress(OSError, AssertionError), opened(port) as sock:
            said(sock, Queue.Declare(queue="q"))
            while True:
                sock.sendall(what)


def secrets(port: int) -> None:
    """Connection.UpdateSecret without a pause"""
    flooded(opened(port), encode(0, Connection.UpdateSecret("guest", "")) * 1_000)


def heartbeats(port: int) -> None:
    """1,000 connections with heartbeats of one second"""
    socks = [opened(port, channels=(), heartbeat_s=1) for _ in range(1_000)]
    beat = framed(8, 0, b"")
    while True:
        for sock in socks:
            sock.sendall(beat)
            drained(sock)
        time.sleep(0.3)


def deletions(port: int) -> None:
    """A queue of 300,000 messages that is deleted, and filled again"""
    while True:
        with filled(port, "d", 300_000) as sock:
            said(sock, Queue.Delete(queue="d"))
            await_(sock, b"\x00\x32\x00\x29")


def persistent(port: int) -> None:
    """Persistent messages without confirms, as fast as they are taken"""
    sock = opened(port)
    said(sock, Queue.Declare(queue="s", durable=True, arguments={"x-max-length": 1_000}))
    flooded(sock, publish(b"s", bytes(100), properties=PERSISTENT) * 1_000)


ATTACKS: list[Attack] = [
    silent, trickled, headers_wrong, storm, passwords, logins, half, pieces, empty_parts, too_long, garbage, unanswered, goes_on,
    half_closed, tables, arrays, deep, properties, copies, copies_same, channels, channels_used, queues, durable_queues, bindings,
    chains, patterns, keys, matching, log_lines, gets, transactions, rollbacks, mandatory, unacked, recovers, nacks, consumers,
    consumers_coming, deaf, asks, secrets, heartbeats, deletions, persistent,
]  # fmt: skip
