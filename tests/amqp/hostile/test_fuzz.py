"""Tables of whatever types, with lengths that lie, wherever clients may send one: an answer or an end, and nobody notices."""

from __future__ import annotations

import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from gateway_amqp.codec import names
from tests.amqp.wire import HEADER, amqp_broker

WIDTHS = dict(zip("tbBsuIilLfdDTV\0", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0, 0), strict=True))
NAMES = st.sampled_from([
    b"", b"x", b"CC", b"BCC", b"x-match", b"x-message-ttl", b"x-max-length", b"x-max-priority", b"x-expires", b"x-overflow",
    b"x-dead-letter-exchange", b"x-delayed-type", b"x-priority", b"x-last-values", b"x-delivery-limit", b"x-queue-type",
    b"alternate-exchange", b"x-single-active-consumer", b"x-retain", b"x-death", b"x-delay", b"capabilities", b"\xff\xfe",
])  # fmt: skip
TEXTS = st.sampled_from([b"", b"any", b"all", b"q", b"classic", b"drop-head", b"topic", b"\xff\xfe", b"\xed\xa0\x80", b"1" * 300])


def long(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def short(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def plain(letter: str) -> st.SearchStrategy[bytes]:
    """A field of a type, of the extremes or of anything."""
    width = WIDTHS[letter]
    values = st.one_of(st.sampled_from([bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * (width - 1)]), st.binary(min_size=width))
    return values.map(lambda value: letter.encode() + value[:width])


def nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    fields = st.lists(st.tuples(NAMES, inner).map(lambda drawn: short(drawn[0]) + drawn[1]), max_size=4).map(b"".join)
    values = st.lists(inner, max_size=4).map(b"".join)
    return st.one_of(fields.map(lambda data: b"F" + long(data)), values.map(lambda data: b"A" + long(data)))


FIELDS = st.recursive(
    st.one_of(
        st.sampled_from(sorted(WIDTHS)).flatmap(plain), TEXTS.map(lambda text: b"S" + long(text)), st.just(b"x" + long(b"\xff"))
    ),
    nested,
    max_leaves=12,
)
RIGHT = st.lists(st.tuples(NAMES, FIELDS).map(lambda drawn: short(drawn[0]) + drawn[1]), max_size=4).map(b"".join).map(long)


@st.composite
def wrong(draw: st.DrawFn) -> bytes:
    """A table in which a byte is another one."""
    table = bytearray(draw(RIGHT))
    table[draw(st.integers(0, len(table) - 1))] = draw(st.integers(0, 255))
    return bytes(table)


TABLES = st.one_of(RIGHT, wrong())
BINDING = b"\0\0" + short(b"q") + short(b"e")


def framed(number: int, method: int, arguments: bytes, kind: int = 1) -> bytes:
    payload = (method.to_bytes(4, "big") if method else b"") + arguments
    return bytes((kind,)) + number.to_bytes(2, "big") + long(payload) + b"\xce"


def start_ok(table: bytes) -> bytes:
    return framed(0, names.CONNECTION_START_OK, table + short(b"AMQPLAIN") + table + short(b"en"))


def published(table: bytes) -> bytes:
    publish = framed(1, names.BASIC_PUBLISH, b"\0\0" + short(b"e") + short(b"k") + b"\1")
    return publish + framed(1, 0, b"\0\x3c\0\0" + bytes(8) + b"\x20\0" + table, 2)


WHERE = [
    lambda table: framed(1, names.QUEUE_DECLARE, b"\0\0" + short(b"mine") + b"\2" + table),
    lambda table: framed(1, names.EXCHANGE_DECLARE, b"\0\0" + short(b"other") + short(b"headers") + b"\2" + table),
    lambda table: framed(1, names.QUEUE_BIND, BINDING + short(b"k") + b"\0" + table),
    lambda table: framed(1, names.QUEUE_UNBIND, BINDING + short(b"k") + table),
    lambda table: framed(1, names.EXCHANGE_BIND, b"\0\0" + short(b"e") + short(b"amq.topic") + short(b"#") + b"\0" + table),
    lambda table: framed(1, names.BASIC_CONSUME, b"\0\0" + short(b"q") + short(b"") + b"\0" + table),
    published,
]


@settings(max_examples=25)
@given(st.lists(st.tuples(TABLES, st.sampled_from(WHERE)), min_size=1, max_size=6), TABLES)
def test_a_table_is_taken_or_refused(said, first):
    trio.run(_say, [put(table) for table, put in said], start_ok(first))


async def _say(said: list[bytes], first: bytes) -> None:
    async with amqp_broker() as bench:
        other = await bench.client()
        other.say(1, commands.Queue.Declare(queue="q"), commands.Exchange.Declare(exchange="e", exchange_type="headers"))
        other.say(1, commands.Queue.Bind(queue="q", exchange="e", arguments={"x": 1}))
        for _ in range(3):
            await other.hear(1)
        newcomer = bench.connect()
        newcomer.raw(HEADER + first)
        for data in said:
            client = await bench.client()
            client.raw(data)  # what is raised is a fault, as it would be an error of the front-end
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            client.vanish()
        assert isinstance(await other.call(1, commands.Queue.Declare(queue="still here")), commands.Queue.DeclareOk)
        assert bench.server.broker.partial.held_bytes == 0
        assert [line for line in [*bench.log.lines, *bench.broker.log.lines] if line[0] == "error"] == []
