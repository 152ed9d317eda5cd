"""What does `tidegate pub` send?"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import trio
import typer

from gateway_mqtt.client import Client
from gateway_mqtt.codec.coding import topic_name
from gateway_mqtt.codec.reasons import TEXTS
from gateway_mqtt.commands.options import ConnectionOptions, checked, with_connection
from gateway_mqtt.commands.properties import properties_of
from gateway_mqtt.commands.running import complain, run

if TYPE_CHECKING:
    from io import BufferedReader

CHUNK = 65_536
"""Bytes of standard input that are read at once, at most."""


@with_connection
def pub(  # noqa: PLR0913 - its options
    topic_argument: Annotated[str | None, typer.Argument(metavar="TOPIC", help="Topic; or -t.")] = None,
    body_argument: Annotated[str | None, typer.Argument(metavar="BODY", help="Message; or one of -m -f -l -s -n.")] = None,
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="Topic.")] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="Message.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", exists=True, dir_okay=False, help="Send a file.")] = None,
    lines: Annotated[bool, typer.Option("-l", "--stdin-line", help="Send each line of standard input.")] = False,
    stdin: Annotated[bool, typer.Option("-s", "--stdin-file", help="Send standard input as one message.")] = False,
    null: Annotated[bool, typer.Option("-n", "--null-message", help="Send an empty message.")] = False,
    retain: Annotated[bool, typer.Option("-r", "--retain", help="Retain it.")] = False,
    qos: Annotated[int, typer.Option("-q", "--qos", min=0, max=2, help="Quality of service: 0, 1 or 2.")] = 0,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Send it so many times; with -m, -f, -s or -n.")] = 1,
    repeat_delay_s: Annotated[float, typer.Option("--repeat-delay", min=0, help="Seconds between two of them.")] = 0.0,
    *,
    connection: ConnectionOptions,
) -> None:
    """Publish a message over MQTT; with -q 1 or 2 it is on disk at the broker when this ends with 0."""
    target = connection.target()
    if body_argument is not None and message is not None:
        raise typer.BadParameter("the message is given twice")
    if lines and repeat > 1:
        raise typer.BadParameter("--repeat is not for -l")
    name = checked(_only("topic", topic_argument, topic, target.topic or None), topic_name)
    bodies = _bodies(body_argument if body_argument is not None else message, file, lines=lines, stdin=stdin, null=null)
    properties = properties_of(connection.properties or (), "publish")

    async def publish(client: Client) -> int:
        async for body in bodies:
            for number in range(repeat):
                if number:
                    await trio.sleep(repeat_delay_s)
                await client.publish(name, body, qos=qos, retain=retain, properties=properties)
        await client.confirmed()
        return _told(client)

    raise typer.Exit(run(target, publish))


def _told(client: Client) -> int:
    """Say of refused messages why they were; return the exit code."""
    for code in dict.fromkeys(client.refused):
        complain(f"the broker refused {client.refused.count(code)} messages: {TEXTS.get(code, f'code {code}')}", code)
    return client.refused[0] if client.refused else 0


def _only(what: str, *given: str | None) -> str:
    values = [value for value in given if value is not None]
    if len(values) != 1:
        raise typer.BadParameter(f"the {what} is {'given twice' if values else 'missing'}")
    return values[0]


def _bodies(message: str | None, file: Path | None, *, lines: bool, stdin: bool, null: bool) -> AsyncIterator[bytes]:
    if sum((message is not None, file is not None, lines, stdin, null)) != 1:
        raise typer.BadParameter("exactly one message is needed: BODY, -m, -f, -l, -s or -n")
    if lines:
        return _stdin_lines()
    if message is not None:
        return _one(lambda: os.fsencode(message))
    if file is not None:
        return _one(file.read_bytes)
    return _one(sys.stdin.buffer.read if stdin else bytes)


async def _one(read: Callable[[], bytes]) -> AsyncIterator[bytes]:
    yield await trio.to_thread.run_sync(read, abandon_on_cancel=True)


async def _stdin_lines() -> AsyncIterator[bytes]:
    """Yield the lines as they come: all that one read brings, for each read is a trip to another thread."""
    source = cast("BufferedReader", sys.stdin.buffer)
    begun: list[bytes] = []
    while chunk := await trio.to_thread.run_sync(source.read1, CHUNK, abandon_on_cancel=True):
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for line in others:
            yield b"".join(begun)
            begun = [line]
    if last := b"".join(begun):
        yield last
