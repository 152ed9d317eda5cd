"""What do tests of the beginning of a connection say first?"""

from __future__ import annotations

from pamqp import commands

from tests.amqp.wire import CAPABILITIES, HEADER

OPEN = commands.Connection.Open("/")
START_OK = commands.Connection.StartOk({"capabilities": CAPABILITIES}, "PLAIN", "\x00guest\x00guest", "en_US")


async def started(bench):
    """Return a client that was greeted."""
    client = bench.connect()
    client.raw(HEADER)
    client.start = await client.hear(0)
    return client


async def tuned(bench):
    """Return a client that was let in, and heard what limits are proposed."""
    client = await started(bench)
    client.say(0, START_OK)
    client.tune = await client.hear(0)
    return client
