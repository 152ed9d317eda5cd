"""Which commands are there in ZMTP 3.1, and what is in them?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway_zeromq.zmtp.frames import COMMAND, Violation, frame

READY: Final = b"READY"
ERROR: Final = b"ERROR"
HELLO: Final = b"HELLO"
WELCOME: Final = b"WELCOME"
INITIATE: Final = b"INITIATE"
PING: Final = b"PING"
PONG: Final = b"PONG"
SUBSCRIBE: Final = b"SUBSCRIBE"
CANCEL: Final = b"CANCEL"

MOST_CONTEXT: Final = 16
"""Bytes of a PING that come back in its PONG."""
_MOST_REASON: Final = 255
_MOST_TTL: Final = 65_535
_TTL_BYTES: Final = 2
_VALUE_HEAD: Final = 4
_COMMAND_NAME: Final = re.compile(rb"[A-Za-z]+")
_PROPERTY_NAME: Final = re.compile(rb"[A-Za-z0-9\-_.+]+")


def command(name: bytes, data: bytes = b"") -> bytes:
    """Return a command's frame."""
    return frame(COMMAND, bytes((len(name),)) + name + data)


def split_command(body: bytes) -> tuple[bytes, bytes]:
    """Return name and data of a command. Raises: Violation."""
    size = body[0] if body else 0
    name = body[1 : 1 + size]
    if not size or len(name) < size or not _COMMAND_NAME.fullmatch(name):
        raise Violation("a command without a name")
    return name, body[1 + size :]


def metadata(properties: Mapping[str, bytes]) -> bytes:
    """Return properties as READY and INITIATE carry them; names are ASCII."""
    parts = []
    for name, value in properties.items():
        parts += [bytes((len(name),)), name.encode(), len(value).to_bytes(_VALUE_HEAD, "big"), value]
    return b"".join(parts)


def read_metadata(data: bytes) -> dict[str, bytes]:
    """Return properties; names in lower case, as case does not count. Raises: Violation."""
    properties: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        start = at + 1
        end = start + data[at]
        name = data[start:end]
        value_at = end + _VALUE_HEAD
        if len(name) < end - start or not _PROPERTY_NAME.fullmatch(name) or value_at > len(data):
            raise Violation("metadata that can't be read")
        at = value_at + int.from_bytes(data[end:value_at], "big")
        key = name.decode().lower()
        if at > len(data) or key in properties:
            raise Violation("metadata that can't be read")
        properties[key] = data[value_at:at]
    return properties


def error(reason: str) -> bytes:
    """Return ERROR; of the reason what fits, and can be seen."""
    text = re.sub(rb"[^!-~]", b"_", reason.encode())[:_MOST_REASON]
    return command(ERROR, bytes((len(text),)) + text)


def read_error(data: bytes) -> str:
    """Return the reason of ERROR. Raises: Violation."""
    reason = data[1:]
    if not data or len(reason) != data[0]:
        raise Violation("an ERROR that can't be read")
    return reason.decode("ascii", "replace")


def ping(context: bytes, ttl_ds: int = 0) -> bytes:
    """Return PING.

    Args:
        context: at most 16 bytes, which come back.
        ttl_ds: tenths of a second after which the peer may take silence for death; 0: it need not.
    """
    return command(PING, min(ttl_ds, _MOST_TTL).to_bytes(_TTL_BYTES, "big") + context)


def read_ping(data: bytes) -> tuple[int, bytes]:
    """Return ttl in tenths of a second, and context. Raises: Violation."""
    if not _TTL_BYTES <= len(data) <= _TTL_BYTES + MOST_CONTEXT:
        raise Violation("a PING that can't be read")
    return int.from_bytes(data[:_TTL_BYTES], "big"), data[_TTL_BYTES:]


def pong(context: bytes) -> bytes:
    """Return the answer to a PING."""
    return command(PONG, context)


def read_pong(data: bytes) -> bytes:
    """Return the context. Raises: Violation."""
    if len(data) > MOST_CONTEXT:
        raise Violation("a PONG that can't be read")
    return data


def hello(user: bytes, password: bytes) -> bytes:
    """Return PLAIN's HELLO; at most 255 bytes each."""
    return command(HELLO, bytes((len(user),)) + user + bytes((len(password),)) + password)


def read_hello(data: bytes) -> tuple[bytes, bytes]:
    """Return user and password. Raises: Violation."""
    middle = 1 + (data[0] if data else 0)
    password = data[middle + 1 :]
    if len(data) <= middle or len(password) != data[middle]:
        raise Violation("a HELLO that can't be read")
    return data[1:middle], password
