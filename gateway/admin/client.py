"""How does another process ask a running broker?"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from gateway.admin.parts import split
from gateway.admin.where import socket_of
from gateway.errors import (
    AccessRefused,
    CommandInvalid,
    GatewayError,
    NotFound,
    NotSupported,
    Overloaded,
    PreconditionFailed,
    ResourceLocked,
)

PATIENCE_S = 60.0
"""A broker that says nothing for so long does not answer any more."""

_RECEIVED_AT_ONCE = 1 << 16
_KINDS = {
    kind.code: kind
    for kind in (AccessRefused, CommandInvalid, NotFound, NotSupported, Overloaded, PreconditionFailed, ResourceLocked)
}


class NoBroker(GatewayError):
    """No broker runs on that data directory, or it can't be asked."""

    code = 541


def ask(data_dir: Path, question: str, *, data: Any = None, **params: Any) -> Any:
    """Ask the broker of a data directory; blocks until it has answered.

    Args:
        question: a key of `gateway.admin.questions.QUESTIONS`.
        data: a parameter of that name, an object of lists which may be long: it is sent in parts.
        params: what that question takes; values that JSON can say.

    Raises:
        NoBroker: none runs there (a socket that a killed one left behind included), or it went in the middle of its answer.
        GatewayError: it says no; the class tells its code.
    """
    parts = [_line(part) for part in split(data)] if data is not None else []
    if parts:
        params["parts"] = len(parts)
    try:
        answer = _exchange(data_dir, [_line({"question": question, "params": params}), *parts])
    except OSError as error:
        raise NoBroker(f"no broker answers in {data_dir} ({error.strerror or error})") from error
    if not answer.endswith(b"\n"):
        raise NoBroker(f"the broker in {data_dir} ended before it had answered")
    try:
        said = json.loads(answer)
        refusal = _refusal(said["error"]) if "error" in said else None
        found = said.get("answer")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoBroker(f"what answers in {data_dir} is no broker of this version") from error
    if refusal is not None:
        raise refusal
    return found


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _exchange(data_dir: Path, lines: list[bytes]) -> bytes:
    path = socket_of(data_dir)
    if path is None:
        raise NoBroker(f"no broker runs in {data_dir}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE_S)
        stream.connect(str(path))
        refused = _sent(stream, lines)
        parts: list[bytes] = []
        while part := stream.recv(_RECEIVED_AT_ONCE):
            parts.append(part)
            if part.endswith(b"\n"):
                break
        if refused is not None and not parts:
            raise refused
    return b"".join(parts)


def _sent(stream: socket.socket, lines: list[bytes]) -> OSError | None:
    """Send a question; return what ended that. Who hangs up on it may have said why."""
    try:
        for line in lines:
            stream.sendall(line)
    except (BrokenPipeError, ConnectionResetError) as error:
        return error
    return None


def _refusal(error: dict[str, Any]) -> GatewayError:
    code = int(error["code"])
    refusal = _KINDS.get(code, GatewayError)(str(error["text"]))
    if refusal.code != code:
        refusal.code = code  # of a kind that has no class of its own here
    return refusal
