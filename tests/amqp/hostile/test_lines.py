"""Nothing that a client says forges a line of the log, or writes to the terminal of who reads it."""

from __future__ import annotations

import io

import pytest
import trio
import trio.lowlevel
from pamqp import commands

from gateway.config import LogSettings
from gateway.log import make_log
from gateway_amqp.codec.names import CONNECTION_OPEN, CONNECTION_START_OK, QUEUE_DECLARE
from tests.amqp.wire import HEADER, amqp_broker

FORGED = "x\r\n2026-01-01 [error] all is lost \x1b[2J\x1b[31m\x07\x9b\u2028\x00"
BYTES = FORGED.encode()


def framed(number: int, method: int, arguments: bytes) -> bytes:
    payload = method.to_bytes(4, "big") + arguments
    return b"\x01" + number.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def table(fields: bytes) -> bytes:
    return len(fields).to_bytes(4, "big") + fields


START = table(b"") + short(b"PLAIN") + table(b"\0" + BYTES + b"\0wrong") + short(b"en")
MECHANISM = table(b"") + short(BYTES) + table(b"") + short(b"en")


async def said(bench) -> None:
    """Say it wherever there is room for a name."""
    client = bench.connect()
    client.raw(BYTES[:8])
    for arguments in (START, MECHANISM):
        client = bench.connect()
        client.raw(HEADER + framed(0, CONNECTION_START_OK, arguments))
    client = await bench.client()
    client.raw(framed(1, QUEUE_DECLARE, b"\0\0" + short(b"q") + b"\0" + table(short(b"x-" + BYTES) + b"V")))
    await client.hear(1)
    client.raw(framed(1, QUEUE_DECLARE, b"\0\0" + short(BYTES) + b"\1" + table(b"")))
    await client.refused(1)
    client.raw(framed(2, QUEUE_DECLARE, BYTES))
    client = await bench.client()
    client.raw(b"\x01\x00\x01\x00\x00\x00\x32" + BYTES + bytes(40))
    client = bench.connect()
    client.raw(HEADER)
    await client.hear(0)
    client.say(0, commands.Connection.StartOk({}, "PLAIN", "\x00guest\x00guest", "en_US"))
    client.say(0, commands.Connection.TuneOk(0, 0, 0))
    client.raw(framed(0, CONNECTION_OPEN, short(BYTES) + b"\0\0"))
    for _ in range(20):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("format_", ["text", "json"])
async def test_each_line_is_one_line_of_what_can_be_seen(format_):
    async with amqp_broker() as bench:
        await said(bench)
        lines = [*bench.log.lines, *bench.broker.log.lines]
    assert len(lines) >= 6
    stream = io.StringIO()
    log = make_log(LogSettings(format=format_), stream)
    for level, event, values in lines:
        assert "all is lost" not in event  # events are of the program alone
        getattr(log, level)(event, **values)
    written = stream.getvalue()
    assert written.count("\n") == len(lines)
    assert "all is lost" in written
    assert all(letter.isprintable() or letter == "\n" for letter in written)
