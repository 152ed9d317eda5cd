"""Who may ask the running broker something, and how does the answer reach him without holding up a message?"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway.admin.parts import SLICE_S, add
from gateway.admin.questions import PAUSE, QUESTIONS, taken
from gateway.admin.where import MAX_DEFINITIONS_BYTES, MAX_QUESTION_BYTES, POINTER, SOCKET, fits
from gateway.errors import GatewayError, NotFound, Overloaded, PreconditionFailed
from gateway.runtime.broker import Broker

MAX_CLIENTS = 64
IDLE_S = 300.0
"""Who asks nothing, or does not read his answer, for so long is cut off."""
_RECEIVED_AT_ONCE = 1 << 16
_PRIVATE = 0o600
_FAREWELL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A bound socket, and what is to be removed at the end."""

    bound: socket.socket
    path: Path
    pointer: Path | None = None


async def serve(broker: Broker, data_dir: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer questions at the data directory's socket until cancelled. A socket that can't be had is logged, and no more.

    One JSON object per line comes in, ``{"question": name, "params": {...}}``; one goes out for each, ``{"answer": ...}`` or
    ``{"error": {"code": ..., "text": ...}}``, in order. Only this user may connect.

    Cancellation: connections are cut, the socket is removed.
    """
    try:
        place = _bind(data_dir)
    except FileNotFoundError:
        broker.log.info("the broker can't be asked anything: there is no data directory for its socket", data_dir=str(data_dir))
        task_status.started()
        return
    except OSError as error:
        broker.log.warning("the broker can't be asked anything: there is no control socket", error=str(error))
        task_status.started()
        return
    try:
        await _serve(broker, place.bound, task_status)
    except Exception as error:  # an edge: one supervised service; the broker goes on without it
        broker.log.error("the broker can't be asked anything any more", error=repr(error), exc_info=error)  # noqa: TRY400
    finally:
        place.bound.close()
        _remove(place)


async def _serve(broker: Broker, bound: socket.socket, task_status: trio.TaskStatus[None]) -> None:
    bound.listen(MAX_CLIENTS)
    bound.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    limit = trio.CapacityLimiter(MAX_CLIENTS)
    async with trio.open_nursery() as nursery:
        task_status.started()
        await trio.serve_listeners(partial(_client, broker, limit), [listener], handler_nursery=nursery)


# -- the socket ---------------------------------------------------------------


def _bind(data_dir: Path) -> _Place:
    """Bind the socket, where its path is short enough. Raises OSError."""
    data_dir = data_dir.absolute()
    path = data_dir / SOCKET
    pointer = data_dir / POINTER
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir} is not there")
    if _answers(path):
        raise FileExistsError(f"another broker answers at {path}")
    path.unlink(missing_ok=True)
    pointer.unlink(missing_ok=True)
    if fits(path):
        return _Place(_bound(path), path)
    short = Path(tempfile.mkdtemp(prefix="tidegate-"))
    if not fits(short / SOCKET):
        short.rmdir()
        short = Path(tempfile.mkdtemp(prefix="tidegate-", dir="/tmp"))
    place = _Place(_bound(short / SOCKET), short / SOCKET, pointer)
    with open(os.open(pointer, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE), "w", encoding="utf-8") as file:
        file.write(f"{place.path}\n")
    return place


def _answers(path: Path) -> bool:
    if not path.exists() or not fits(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _bound(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(_PRIVATE)  # nobody can connect yet: it does not listen
    except OSError:
        bound.close()
        raise
    return bound


def _remove(place: _Place) -> None:
    with suppress(OSError):
        place.path.unlink(missing_ok=True)
        if place.pointer is not None:
            place.pointer.unlink(missing_ok=True)
            shutil.rmtree(place.path.parent, ignore_errors=True)


# -- one client ---------------------------------------------------------------


async def _client(broker: Broker, limit: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    try:
        limit.acquire_nowait()
    except trio.WouldBlock:
        await _turn_away(stream)
        return
    try:
        async with stream:
            await _answer_lines(broker, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        broker.counters["admin.cut_off"] += 1
    except Exception as error:  # an edge: one client; the broker goes on
        broker.log.error("a question to the broker failed", error=repr(error), exc_info=error)  # noqa: TRY400
    finally:
        limit.release()


async def _turn_away(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(_FAREWELL_S):
        await _refuse(stream, Overloaded(f"{MAX_CLIENTS} others are being answered: ask again"))
        await stream.receive_some(_RECEIVED_AT_ONCE)  # his question: who is hung up on while he talks doesn't hear it
    await trio.aclose_forcefully(stream)


async def _answer_lines(broker: Broker, stream: trio.SocketStream) -> None:
    lines = _Lines(stream)
    try:
        while (line := await lines.next()) is not None:
            question, params = _parse(line)
            if "parts" in params:
                params["data"] = await _gathered(lines, taken(params, "parts", int))
            await _answer(broker, stream, question, params)
    except PreconditionFailed as error:
        await _refuse(stream, error)
        await stream.send_eof()
        with trio.move_on_after(_FAREWELL_S):
            while await stream.receive_some(_RECEIVED_AT_ONCE):
                pass  # who is hung up on while he talks doesn't hear it


class _Lines:
    """What comes in, line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()
        self._searched = 0

    async def next(self) -> bytes | None:
        """Return the next line; None: no other comes.

        Raises:
            PreconditionFailed: it is too long.
        """
        received = self._received
        while (end := received.find(b"\n", self._searched)) < 0:
            self._searched = len(received)
            if self._searched > MAX_QUESTION_BYTES:
                break
            with trio.fail_after(IDLE_S):
                part = await self._stream.receive_some(_RECEIVED_AT_ONCE)
            if not part:
                return None
            received += part
        if end < 0 or end > MAX_QUESTION_BYTES:
            raise PreconditionFailed(f"a question, or a part of one, has at most {MAX_QUESTION_BYTES} bytes")
        line, self._searched = bytes(received[:end]), 0
        del received[: end + 1]
        return line


async def _gathered(lines: _Lines, parts: int) -> dict[str, Any]:
    """Return what comes in parts, a line each; others have their turn after each."""
    whole: dict[str, Any] = {}
    size = 0
    for _ in range(parts):
        line = await lines.next() or b""
        size += len(line)
        if size > MAX_DEFINITIONS_BYTES:
            raise PreconditionFailed(f"definitions have at most {MAX_DEFINITIONS_BYTES} bytes")
        part = _object(line)
        if not isinstance(part, dict):
            raise PreconditionFailed("a part of a question is one JSON object on a line of its own")
        add(whole, part)
        await trio.lowlevel.checkpoint()
    return whole


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PreconditionFailed("a question is one JSON object on a line of its own") from error


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    match _object(line):
        case {"question": str(question), "params": dict(params)}:
            return question, params
        case {"question": str(question), **rest} if not rest:
            return question, {}
    raise PreconditionFailed('a question looks like {"question": "name", "params": {...}}')


async def _answer(broker: Broker, stream: trio.SocketStream, question: str, params: dict[str, Any]) -> None:
    ask = QUESTIONS.get(question)
    try:
        if ask is None:
            raise NotFound(f"there is no question {question!r}; there are: {', '.join(sorted(QUESTIONS))}")
        answer = ask(broker, params)
        if isinstance(answer, Awaitable):
            answer = await answer
    except GatewayError as error:
        await _refuse(stream, error)
    else:
        await _send_answer(stream, answer)


async def _send_answer(stream: trio.SocketStream, answer: Any) -> None:
    if not isinstance(answer, Iterator):
        await _send(stream, _encode({"answer": answer}) + b"\n")
        return
    await _send(stream, b'{"answer":[')
    first = True
    while True:
        part, ended, error = _next_slice(answer, first=first)
        await _send(stream, part)
        first = first and not part
        if error is not None:
            await _send(stream, b'],"error":' + _encode(_in_words(error)) + b"}\n")
            return
        if ended:
            await _send(stream, b"]}\n")
            return
        await trio.lowlevel.checkpoint()


def _next_slice(answer: Iterator[Any], *, first: bool) -> tuple[bytes, bool, GatewayError | None]:
    """Work on an answer for a short while; return what there is of it, whether that was all, and what ended it."""
    until = time.perf_counter() + SLICE_S
    parts: list[bytes] = []
    while time.perf_counter() < until:
        try:
            item = next(answer, _END)
        except GatewayError as error:
            return _joined(parts, first=first), True, error
        if item is _END:
            return _joined(parts, first=first), True, None
        if item is not PAUSE:
            parts.append(_encode(item))
    return _joined(parts, first=first), False, None


_END = object()


def _joined(parts: list[bytes], *, first: bool) -> bytes:
    return (b"" if first or not parts else b",") + b",".join(parts)


async def _refuse(stream: trio.SocketStream, error: GatewayError) -> None:
    await _send(stream, _encode({"error": _in_words(error)}) + b"\n")


def _in_words(error: GatewayError) -> dict[str, Any]:
    return {"code": error.code, "text": error.text}


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    if data:
        with trio.fail_after(IDLE_S):
            await stream.send_all(data)


def _encode(value: Any) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(value: object) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
