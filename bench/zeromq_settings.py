"""With which settings does a gateway stand in the middle, and how are others started that do the same?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench import brokers
from bench.load import zeromq as load

Start = Callable[..., AbstractContextManager[brokers.Broker]]

ENABLED = "frontend.zeromq.enabled=true"
_BINDINGS = '[{exchange="bench", key="#"}]'
_PROXY = """
import sys, zmq
context = zmq.Context()
near, far = context.socket(zmq.PULL), context.socket(zmq.PUSH)
near.bind(sys.argv[1]), far.bind(sys.argv[2])
zmq.proxy(near, far)
"""


def address() -> str:
    return f"tcp://127.0.0.1:{brokers.free_port()}"


def pipe(into: str, out_of: str, *, frames: str = "body", persistent: bool = False, push: str = "") -> list[str]:
    """Return settings for PULL -> exchange -> queue -> PUSH. `push`: more of PUSH's, as in a table of TOML."""
    near = f'{{socket="PULL", bind="{into}", exchange="bench", frames="{frames}", persistent={str(persistent).lower()}}}'
    more = f", {push}" if push else ""
    far = f'{{socket="PUSH", bind="{out_of}", queue="bench", frames="{frames}", bindings={_BINDINGS}{more}}}'
    return [ENABLED, f"frontend.zeromq.endpoint=[{near}, {far}]"]


def router(into: str, more: str = "") -> list[str]:
    """Return settings for one ROUTER endpoint."""
    return [ENABLED, f'frontend.zeromq.endpoint=[{{socket="ROUTER", bind="{into}"{more}}}]']


@contextmanager
def tidegate(start: Start, core: set[int] | None, settings: Sequence[str], *addresses: str) -> Iterator[brokers.Broker]:
    """Start a gateway, and wait until it listens at these addresses."""
    with start(core, *settings) as broker:
        for address_ in addresses:
            brokers.wait_for(_port(address_), broker.process)
        yield broker


def _port(address_: str) -> int:
    return int(address_.rpartition(":")[2])


@contextmanager
def other(command: Sequence[str], listens: str, cores: set[int] | None) -> Iterator[brokers.Broker]:
    """Start a program that stands in the middle, and wait for the address that it binds last."""
    process = subprocess.Popen(command, preexec_fn=brokers.pinned(cores))  # noqa: PLW1509
    try:
        brokers.wait_for(_port(listens), process)
        yield brokers.Broker(command[0], process, 0)
    finally:
        process.kill()
        process.wait()


def zmq_proxy(into: str, out_of: str) -> list[str]:
    """Return the command for libzmq's own proxy."""
    if load.program() is None:
        return [sys.executable, "-c", _PROXY, into, out_of]  # it is the same loop in C
    return load.command("proxy", {"into": into, "out": out_of})


def with_asyncio(mode: str, *addresses: str) -> list[str]:
    """Return the command for the gateway that is written with zmq.asyncio."""
    return [sys.executable, str(Path(__file__).parent / "load" / "asyncio_gateway.py"), mode, *addresses]
