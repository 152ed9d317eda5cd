"""How does a command end: with its work done, at a time, by a signal, or with a complaint?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import trio
import typer

from gateway_mqtt.client import Client, Lost, Refused, open_client
from gateway_mqtt.codec.packets import MalformedPacket
from gateway_mqtt.commands.options import Target

EXIT_UNREACHABLE = 1
EXIT_LOST = 7
EXIT_TIMEOUT = 27
"""As mosquitto_sub's; a refused CONNECT exits with its code, refused subscriptions and publishes with theirs."""

Work = Callable[[Client], Awaitable[int]]


def run(target: Target, work: Work, timeout_s: float = 0) -> int:
    """Connect and work; return the exit code. What goes wrong is told in one line, unless the target says quiet."""
    if target.quiet:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            return run(replace(target, quiet=False), work, timeout_s)
    try:
        return trio.run(_until_told, target, work, timeout_s or float("inf"))
    except Exception as error:  # the edge of the program; what is not expected is raised again
        return _exit_code(target, error)


def complain(text: str, code: int) -> int:
    """Say on standard error what went wrong; return the code."""
    typer.echo(f"tidegate: {text}", err=True)
    return code


def _exit_code(target: Target, error: Exception) -> int:
    match error:
        case ExceptionGroup(exceptions=[only]):  # as a nursery wraps it
            return _exit_code(target, only)
        case BrokenPipeError():
            sys.stdout = None  # the reader of our output is gone: nothing is flushed there at the exit
            return 0
        case Refused(code=code):
            return complain(f"refused by the broker: {error}", code)
        case Lost():
            return complain(str(error), EXIT_LOST)
        case MalformedPacket(reason=reason):
            return complain(f"this is no MQTT broker: {reason}", EXIT_LOST)
        case OSError():
            return complain(f"{target.place}: {_why(error)}", EXIT_UNREACHABLE)
        case _:
            raise error


def _why(error: OSError) -> str:
    """Return the system's words: trio's own say only that all attempts failed."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)


async def _until_told(target: Target, work: Work, timeout_s: float) -> int:
    """Work until it is done, the time is over, or a signal says so; then say goodbye."""
    async with open_client(target.place, target.connect) as client:
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
