"""What do `tidegate pub` and `tidegate sub` do, with the common flags of mosquitto_pub and mosquitto_sub?"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import trio
import typer

from gateway_mqtt.client import Client, Lost, Refused, open_client
from gateway_mqtt.codec.coding import topic_filter, topic_name
from gateway_mqtt.codec.packets import FAILURE, Connect, MalformedPacket, Will
from gateway_mqtt.formats import PAYLOAD, VERBOSE, Formatter, formatter

EXIT_UNREACHABLE = 1
EXIT_LOST = 7
EXIT_TIMEOUT = 27
"""As mosquitto_sub's; a refused CONNECT exits with its return code, 1 to 5, and refused subscriptions with 128."""

app = typer.Typer()

Host = Annotated[str, typer.Option("-h", "--host", help="Host of the broker.")]
Port = Annotated[int, typer.Option("-p", "--port", min=1, max=65_535, help="Its port.")]
ClientId = Annotated[str | None, typer.Option("-i", "--id", help="Client identifier; by default a random one.")]
User = Annotated[str | None, typer.Option("-u", "--username", help="User name.")]
Password = Annotated[str | None, typer.Option("-P", "--pw", help="Password.")]
KeepAlive = Annotated[int, typer.Option("-k", "--keepalive", min=0, max=65_535, help="Keep alive, in seconds; 0: none.")]
Persistent = Annotated[bool, typer.Option("-c", "--disable-clean-session", help="Persistent session; needs -i.")]
Qos = Annotated[int, typer.Option("-q", "--qos", min=0, max=1, help="Quality of service: 0 or 1.")]
WillTopic = Annotated[str | None, typer.Option("--will-topic", help="Topic of the will.")]
WillPayload = Annotated[str | None, typer.Option("--will-payload", help="Payload of the will.")]
WillQos = Annotated[int, typer.Option("--will-qos", min=0, max=1, help="Quality of service of the will.")]
WillRetain = Annotated[bool, typer.Option("--will-retain", help="Retain the will.")]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as whom."""

    host: str
    port: int
    connect: Connect


@app.command()
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
    qos: Qos = 0,
    host: Host = "127.0.0.1",
    port: Port = 1883,
    client_id: ClientId = None,
    user: User = None,
    password: Password = None,
    keep_alive_s: KeepAlive = 60,
    persistent: Persistent = False,
    will_topic: WillTopic = None,
    will_payload: WillPayload = None,
    will_qos: WillQos = 0,
    will_retain: WillRetain = False,
) -> None:
    """Publish a message over MQTT; with -q 1 it is on disk at the broker when this ends with 0."""
    name = _checked(_only("topic", topic_argument, topic), topic_name)
    bodies = _bodies(body_argument if body_argument is not None else message, file, lines=lines, stdin=stdin, null=null)
    if body_argument is not None and message is not None:
        raise typer.BadParameter("the message is given twice")
    will = _will(will_topic, will_payload, will_qos, retain=will_retain)
    connect = _connect(client_id, user, password, keep_alive_s, will, persistent=persistent)

    async def publish(client: Client) -> int:
        async for body in bodies:
            await client.publish(name, body, qos=qos, retain=retain)
        await client.confirmed()
        return 0

    raise typer.Exit(_run(Target(host, port, connect), publish))


@app.command()
def sub(  # noqa: PLR0913 - its options
    filter_arguments: Annotated[list[str] | None, typer.Argument(metavar="FILTER", help="Topic filters; or -t.")] = None,
    filter_options: Annotated[list[str] | None, typer.Option("-t", "--topic", help="Topic filter. Repeatable.")] = None,
    count: Annotated[int, typer.Option("-C", min=0, help="End after so many messages; 0: never.")] = 0,
    timeout_s: Annotated[float, typer.Option("-W", min=0, help="End with exit code 27 after so many seconds; 0: never.")] = 0,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print the topic before the message.")] = False,
    template: Annotated[
        str | None, typer.Option("-F", help="Print as this says: %t topic, %p payload, %x hex, %l length, %q QoS, %r retain.")
    ] = None,
    bare: Annotated[bool, typer.Option("-N", help="No newline after each message.")] = False,
    fresh: Annotated[bool, typer.Option("-R", help="Leave retained messages out.")] = False,
    qos: Qos = 0,
    host: Host = "127.0.0.1",
    port: Port = 1883,
    client_id: ClientId = None,
    user: User = None,
    password: Password = None,
    keep_alive_s: KeepAlive = 60,
    persistent: Persistent = False,
    will_topic: WillTopic = None,
    will_payload: WillPayload = None,
    will_qos: WillQos = 0,
    will_retain: WillRetain = False,
) -> None:
    """Subscribe over MQTT and print what comes; a message is acknowledged after it was printed."""
    filters = tuple((_checked(pattern, topic_filter), qos) for pattern in [*(filter_arguments or ()), *(filter_options or ())])
    if not filters:
        raise typer.BadParameter("a topic filter is needed")
    written = _writer(template if template is not None else VERBOSE if verbose else PAYLOAD, b"" if bare else b"\n")
    will = _will(will_topic, will_payload, will_qos, retain=will_retain)
    connect = _connect(client_id, user, password, keep_alive_s, will, persistent=persistent)

    async def subscribe(client: Client) -> int:
        codes = await client.subscribe(filters)
        for (pattern, _), code in zip(filters, codes, strict=False):
            if code == FAILURE:
                typer.echo(f"tidegate: the broker refused the subscription {pattern!r}", err=True)
        if all(code == FAILURE for code in codes):
            return FAILURE
        return await _print(client, written, count, fresh=fresh)

    raise typer.Exit(_run(Target(host, port, connect), subscribe, timeout_s))


# -- what the options mean --------------------------------------------------


def _only(what: str, argument: str | None, option: str | None) -> str:
    if (argument is None) == (option is None):
        raise typer.BadParameter(f"the {what} is {'missing' if argument is None else 'given twice'}")
    return argument if argument is not None else option or ""


def _checked(value: str, check: Callable[[bytes], str]) -> str:
    try:
        return check(os.fsencode(value))
    except MalformedPacket as error:
        raise typer.BadParameter(f"{value!r}: {error.reason}") from None


def _will(topic: str | None, payload: str | None, qos: int, *, retain: bool) -> Will | None:
    if topic is None:
        if payload is not None or qos or retain:
            raise typer.BadParameter("a will needs --will-topic")
        return None
    return Will(_checked(topic, topic_name), os.fsencode(payload or ""), qos, retain)


def _connect(
    client_id: str | None, user: str | None, password: str | None, keep_alive_s: int, will: Will | None, *, persistent: bool
) -> Connect:
    if persistent and not client_id:
        raise typer.BadParameter("a persistent session (-c) needs a client identifier (-i)")
    if password is not None and user is None:
        raise typer.BadParameter("a password (-P) needs a user name (-u)")
    identifier = client_id if client_id is not None else f"tidegate-{secrets.token_hex(6)}"
    secret = None if password is None else os.fsencode(password)
    return Connect(identifier, not persistent, keep_alive_s, will, user, secret)


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
    while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        yield line.removesuffix(b"\n")


# -- running ----------------------------------------------------------------


def _writer(template: str, end: bytes) -> Formatter:
    try:
        return formatter(template + ("" if not end else "\\n"))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _print(client: Client, written: Formatter, count: int, *, fresh: bool) -> int:
    printed = 0
    async for message in client.messages:
        if not (fresh and message.retain):
            sys.stdout.buffer.write(written(message))
            sys.stdout.buffer.flush()
            printed += 1
        await client.acknowledge(message)
        if count and printed >= count:
            return 0
    raise Lost(client.lost)


def _run(target: Target, work: Callable[[Client], Awaitable[int]], timeout_s: float = 0) -> int:
    """Return the exit code."""
    try:
        return trio.run(_until_told, target, work, timeout_s or float("inf"))
    except Exception as error:  # the edge of the program; what is not expected is raised again
        return _exit_code(target, error)


def _exit_code(target: Target, error: Exception) -> int:
    match error:
        case ExceptionGroup(exceptions=[only]):  # as a nursery wraps it
            return _exit_code(target, only)
        case BrokenPipeError():
            sys.stdout = None  # the reader of our output is gone: nothing is flushed there at the exit
            return 0
        case Refused(code=code):
            return _complain(f"refused by the broker: {error}", code)
        case Lost():
            return _complain(str(error), EXIT_LOST)
        case MalformedPacket(reason=reason):
            return _complain(f"this is no MQTT broker: {reason}", EXIT_LOST)
        case OSError():
            return _complain(f"{target.host}:{target.port}: {_why(error)}", EXIT_UNREACHABLE)
        case _:
            raise error


def _why(error: OSError) -> str:
    """Return the system's words: trio's own say only that all attempts failed."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)


def _complain(text: str, code: int) -> int:
    typer.echo(f"tidegate: {text}", err=True)
    return code


async def _until_told(target: Target, work: Callable[[Client], Awaitable[int]], timeout_s: float) -> int:
    """Work until it is done, the time is over, or a signal says so; then say goodbye."""
    async with open_client(target.host, target.port, target.connect) as client:
        code = EXIT_TIMEOUT
        with trio.move_on_after(timeout_s) as scope, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                told = False

                async def listen() -> None:
                    nonlocal told
                    async for _ in signals:
                        told = True
                        scope.cancel()

                nursery.start_soon(listen)
                code = await work(client)
                nursery.cancel_scope.cancel()
        return 0 if told else code
    raise AssertionError("unreachable")
