"""Anything may come: a connection ends with a code or goes on, nothing breaks, and nobody else notices."""

from __future__ import annotations

from typing import Any

import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, commands

from gateway_amqp.codec.methods import encode
from tests.amqp.wire import HEADER, HEARTBEAT, amqp_broker, publishing

NAMES = st.sampled_from(["", "q", "e", "amq.topic", "amq.gen-x", "amq.rabbitmq.reply-to", "\u00fc\U0001f407", "a" * 255, "\0"])
NUMBERS = st.sampled_from([0, 1, 2, 7, 2_047, 2_048, 65_535])
TAGS = st.sampled_from([0, 1, 2, 1 << 63, (1 << 64) - 1])


def with_name(method: base.Frame, field: str, name: str) -> base.Frame:
    """Name what pamqp would not."""
    setattr(method, field, name)
    return method


METHODS = st.one_of(
    st.just(commands.Channel.Open()),
    st.just(commands.Channel.Close(200, "", 0, 0)),
    st.just(commands.Channel.CloseOk()),
    st.builds(commands.Channel.Flow, st.booleans()),
    st.just(commands.Connection.Close(200, "", 0, 0)),
    st.just(commands.Connection.CloseOk()),
    st.just(commands.Connection.TuneOk(0, 0, 0)),
    st.just(commands.Connection.Blocked("why")),
    st.just(commands.Connection.UpdateSecret("new", "why")),
    st.just(commands.Confirm.Select()),
    st.just(commands.Tx.Select()),
    st.just(commands.Tx.Commit()),
    st.just(commands.Tx.Rollback()),
    st.builds(commands.Queue.Declare, queue=st.sampled_from(["", "q", "r"]), passive=st.booleans(), exclusive=st.booleans()),
    NAMES.map(lambda name: with_name(commands.Queue.Declare(queue="q"), "queue", name)),
    NAMES.map(lambda name: with_name(commands.Exchange.Declare(exchange="e"), "exchange", name)),
    st.builds(commands.Queue.Delete, queue=st.sampled_from(["q", "r"])),
    st.builds(commands.Queue.Bind, queue=st.sampled_from(["q", "r"]), exchange=st.sampled_from(["e", "amq.topic"])),
    st.builds(commands.Exchange.Declare, exchange=st.just("e"), exchange_type=st.sampled_from(["direct", "topic", "none"])),
    st.builds(commands.Basic.Consume, queue=st.sampled_from(["q", "r"]), no_ack=st.booleans()),
    st.builds(commands.Basic.Get, queue=st.sampled_from(["q", "r"]), no_ack=st.booleans()),
    st.builds(commands.Basic.Ack, TAGS, st.booleans()),
    st.builds(commands.Basic.Nack, TAGS, st.booleans(), st.booleans()),
    st.builds(commands.Basic.Reject, TAGS, st.booleans()),
    st.builds(commands.Basic.Recover, st.booleans()),
    st.builds(commands.Basic.Qos, prefetch_count=st.integers(0, 65_535), global_=st.booleans()),
    st.just(commands.Basic.Deliver("c", 1)),
)


def named(method: int) -> st.SearchStrategy[bytes]:
    """A method whose arguments are whatever they are."""
    return st.tuples(NUMBERS, st.binary(max_size=40)).map(lambda drawn: framed(1, drawn[0], method.to_bytes(4, "big") + drawn[1]))


def framed(kind: int, number: int, payload: bytes) -> bytes:
    return bytes((kind,)) + number.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


KNOWN = [
    class_ << 16 | method
    for class_, methods in {
        10: range(80),
        20: range(50),
        40: range(60),
        50: range(60),
        60: range(130),
        85: range(20),
        90: range(40),
    }.items()
    for method in methods
]

SAID = st.one_of(
    st.tuples(NUMBERS, METHODS).map(lambda drawn: encode(drawn[0], drawn[1])),
    st.tuples(st.sampled_from([1, 2]), METHODS).map(lambda drawn: encode(drawn[0], drawn[1])),
    st.tuples(NUMBERS, st.binary(max_size=50)).map(lambda drawn: publishing(drawn[0], "", "q", drawn[1])),
    st.sampled_from(KNOWN).flatmap(named),
    st.tuples(st.integers(0, 255), NUMBERS, st.binary(max_size=30)).map(lambda drawn: framed(*drawn)),
    st.just(HEARTBEAT),
    st.binary(max_size=20),
)


@settings(max_examples=100)
@given(st.lists(SAID, max_size=12), st.lists(st.integers(1, 60), max_size=20), st.booleans())
def test_whatever_a_client_says_it_gets_an_answer_or_an_end(said: list[bytes], cuts: list[int], opened: bool) -> None:
    trio.run(_say, b"".join(said), cuts, opened)


async def _say(data: bytes, cuts: list[int], opened: bool) -> None:
    async with amqp_broker() as bench:
        other = await bench.client()
        client: Any = await bench.client() if opened else bench.connect()
        if not opened:
            client.raw(HEADER)
        for cut in [*cuts, len(data)]:
            client.raw(data[:cut])  # what is raised is a fault, as it would be an error of the front-end
            data = data[cut:]
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        client.vanish()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert isinstance(await other.call(1, commands.Queue.Declare(queue="still here")), commands.Queue.DeclareOk)
        assert bench.logged("a front-end failed to take a message") == 0
        broker = bench.server.broker
        assert len(broker.connections) == 1
        assert broker.partial.held_bytes == 0
        assert [line for line in bench.broker.log.lines if line[0] == "error"] == []
