"""What do tests of one channel say and hear again and again?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.lowlevel
from pamqp import base, commands, frame

from gateway.errors import JournalError
from tests.amqp.wire import Bench, Client, Content, amqp_broker
from tests.runtime.support import HandJournal

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could be originally declared on "
    "another connection or the exclusive property value does not match that of the original declaration."
)
NOT_DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"

PATIENCE_S = 60

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue


async def answered(client: Client, method: Any, kind: type, channel: int = 1) -> Any:
    """Send a method and return its answer, which is of this kind."""
    answer = await client.call(channel, method)
    assert isinstance(answer, kind), (answer, getattr(answer, "reply_text", ""))
    return answer


async def refused(client: Client, *methods: Any) -> tuple[int, str]:
    """Say what closes channel 1; return code and text."""
    client.say(1, *methods)
    return await client.refused(1)


async def declared(client: Client, queue: str = "q", channel: int = 1, **fields: Any) -> Any:
    return await answered(client, Queue.Declare(queue=queue, **fields), Queue.DeclareOk, channel)


async def exchange(client: Client, name: str, kind: str = "direct", channel: int = 1, **fields: Any) -> None:
    await answered(client, Exchange.Declare(exchange=name, exchange_type=kind, **fields), Exchange.DeclareOk, channel)


async def bound(client: Client, queue: str, source: str, key: str = "", channel: int = 1, **fields: Any) -> None:
    await answered(client, Queue.Bind(queue=queue, exchange=source, routing_key=key, **fields), Queue.BindOk, channel)


async def consuming(client: Client, queue: str = "q", tag: str = "c", channel: int = 1, **fields: Any) -> str:
    """Consume and return the tag, when the client was told."""
    answer = await answered(client, Basic.Consume(queue=queue, consumer_tag=tag, **fields), Basic.ConsumeOk, channel)
    return answer.consumer_tag


async def limited(client: Client, count: int, *, together: bool = False, channel: int = 1) -> None:
    await answered(client, Basic.Qos(prefetch_count=count, global_=together), Basic.QosOk, channel)


async def delivered(client: Client, count: int = 1, channel: int = 1) -> list[Content]:
    """Return the next deliveries."""
    found = [await client.hear(channel) for _ in range(count)]
    for one in found:
        assert isinstance(one, Content), (one, getattr(one, "reply_text", ""))
    return found


async def bodies(client: Client, count: int, channel: int = 1) -> list[bytes]:
    return [one.body for one in await delivered(client, count, channel)]


def publish(client: Client, *texts: bytes, queue: str = "q", channel: int = 1, **fields: Any) -> None:
    for text in texts:
        client.publish(channel, "", queue, text, **fields)


def raw_publish(channel: int, exchange: str, key: str, properties: bytes, data: bytes) -> bytes:
    """Return a publish whose properties, flags included, are these very bytes."""
    method = frame.marshal(Basic.Publish(exchange=exchange, routing_key=key), channel)
    number = channel.to_bytes(2, "big")
    head = b"\0\x3c\0\0" + len(data).to_bytes(8, "big") + properties
    parts = [method, b"\2" + number + len(head).to_bytes(4, "big") + head + b"\xce"]
    if data:
        parts.append(b"\3" + number + len(data).to_bytes(4, "big") + data + b"\xce")
    return b"".join(parts)


async def ready(client: Client, queue: str = "q", channel: int = 1) -> int:
    """Return how many messages wait in a queue; what was sent before is done by then."""
    answer = await answered(client, Queue.Declare(queue=queue, passive=True), Queue.DeclareOk, channel)
    return answer.message_count


async def got(client: Client, queue: str = "q", channel: int = 1, **fields: Any) -> Content | None:
    """Get the next message of a queue; None: it is empty."""
    answer = await client.call(channel, Basic.Get(queue=queue, **fields))
    assert isinstance(answer, Content | Basic.GetEmpty), answer
    return answer if isinstance(answer, Content) else None


async def taken(client: Client, queue: str = "q") -> Content | None:
    """Get the next message of a queue for good; None: it is empty."""
    return await got(client, queue, no_ack=True)


async def until(fact: Callable[[], Any]) -> None:
    """Let the broker have turns until something is so."""
    with trio.fail_after(PATIENCE_S):
        while not fact():
            await trio.lowlevel.checkpoint()


# -- the disk ---------------------------------------------------------------


@asynccontextmanager
async def unwritten(
    queue: str = "q", *, first: base.Frame | None = None, limits: dict | None = None
) -> AsyncIterator[tuple[Bench, HandJournal, Client]]:
    """Give a broker, its journal, which writes nothing by itself from now on, and a client that has declared a durable queue.

    Args:
        first: what the client asks for besides.
    """
    journal = HandJournal(automatic=True)
    async with amqp_broker(journal, limits=limits) as bench:
        client = await bench.client()
        await declared(client, queue, durable=True)
        if first is not None:
            answer = await client.call(1, first)
            assert not isinstance(answer, commands.Channel.Close | commands.Connection.Close), answer.reply_text
        journal.automatic = False
        yield bench, journal, client


async def written(journal: HandJournal, error: JournalError | None = None) -> None:
    """Wait until something waits to be written, and let it be; or fail."""
    await until(lambda: journal.writes)
    journal.finish(error)


async def refusing(bench: Bench, journal: HandJournal) -> None:
    """Let what is written fail until publishers are refused. Needs a clock that jumps."""
    with trio.fail_after(600):
        while not bench.broker.alarms.causes:
            if journal.writes:
                journal.finish(JournalError("no space left"))
            await trio.sleep(0.1)
