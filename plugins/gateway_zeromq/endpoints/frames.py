"""Which frame of a plain ZeroMQ message is what?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from gateway.api import COMMON, NO_PROPERTIES, Message, Properties, encode_properties
from gateway_zeromq.tgp.codec import MAX_HEADER_BYTES, check_depth

MULTIPART = "application/vnd.zeromq.multipart"
"""Content type of a body that is a message of several frames: a msgpack array of them."""
_MULTIPART = MULTIPART.encode()
MULTIPART_WIRE = encode_properties(Properties(content_type=MULTIPART))

Parts: TypeAlias = tuple[bytes | None, bytes, bytes]
"""Key (None: the endpoint's own), body, properties in the common form."""

_WITH_HEADERS = 3

_unpack_headers = msgspec.msgpack.Decoder(dict[str, Any]).decode
_parse_headers = msgspec.json.Decoder(dict[str, Any]).decode
_pack = msgspec.msgpack.Encoder().encode
_unpack_frames = msgspec.msgpack.Decoder(list[bytes]).decode


class WrongFrames(Exception):
    """A message has not the frames that its endpoint expects; the text says what is wrong."""


class WrongKey(WrongFrames):
    """A routing key that is not taken."""


def split_body(message: bytes | list[bytes]) -> Parts:
    """Split ``body``."""
    if isinstance(message, bytes):
        return None, message, b""
    raise WrongFrames(f"{len(message)} frames; the endpoint expects 1: body")


def split_key(message: bytes | list[bytes]) -> Parts:
    """Split ``key,body``."""
    if isinstance(message, list) and len(message) == 2:  # noqa: PLR2004 - key and body
        return message[0], message[1], b""
    raise WrongFrames(f"{_count(message)} frames; the endpoint expects 2: key,body")


def split_headers(message: bytes | list[bytes]) -> Parts:
    """Split ``key,headers,body``."""
    if isinstance(message, list) and len(message) == _WITH_HEADERS:
        return message[0], message[2], _wire(message[1])
    raise WrongFrames(f"{_count(message)} frames; the endpoint expects 3: key,headers,body")


def split_raw(message: bytes | list[bytes]) -> Parts:
    """Keep all frames as one body."""
    if isinstance(message, bytes):
        return None, message, b""
    return None, _pack(message), MULTIPART_WIRE


SPLITTERS: dict[str, Callable[[bytes | list[bytes]], Parts]] = {
    "body": split_body,
    "key,body": split_key,
    "key,headers,body": split_headers,
    "raw": split_raw,
}


def _count(message: bytes | list[bytes]) -> int:
    return 1 if isinstance(message, bytes) else len(message)


def _wire(frame: bytes) -> bytes:
    if not frame:
        return b""
    if len(frame) > MAX_HEADER_BYTES:
        raise WrongFrames(f"headers of {len(frame)} bytes; at most {MAX_HEADER_BYTES} are allowed")
    try:
        headers = _parse_headers(frame) if frame[:1] == b"{" else _unpack_headers(frame)
        check_depth(headers)
        return encode_properties(Properties(headers=headers)) if headers else b""
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise WrongFrames(f"the headers are neither a msgpack map nor a JSON object with text as keys: {error}") from None


Joiner: TypeAlias = Callable[[Message, bytes], list[bytes]]
"""Message and key in the endpoint's spelling -> frames."""


def join_body(message: Message, _key: bytes) -> list[bytes]:
    """Make ``body``."""
    return [message.body]


def join_key(message: Message, key: bytes) -> list[bytes]:
    """Make ``key,body``."""
    return [key, message.body]


def join_raw(properties: Callable[[Message], Properties]) -> Joiner:
    """Return what makes the frames that a message was made of, by whichever protocol it came."""

    def join(message: Message, _key: bytes) -> list[bytes]:
        if not message.wire or not _is_multipart(message, properties):
            return [message.body]
        try:
            return _unpack_frames(message.body) or [message.body]
        except msgspec.MsgspecError:  # another publisher's word for something else
            return [message.body]

    return join


def _is_multipart(message: Message, properties: Callable[[Message], Properties]) -> bool:
    """Say whether the body is a message of several frames; there may be other properties, too."""
    wire = message.wire
    if message.wire_tag == COMMON and (wire == MULTIPART_WIRE or _MULTIPART not in wire):
        return wire == MULTIPART_WIRE
    return properties(message).content_type == MULTIPART


def join_headers(properties: Callable[[Message], Properties]) -> Joiner:
    """Return what makes ``key,headers,body``; the headers are a msgpack map."""

    def join(message: Message, key: bytes) -> list[bytes]:
        known = properties(message) if message.wire_tag else NO_PROPERTIES
        return [key, _pack(known.headers or {}), message.body]

    return join


def joiner_of(frames: str, properties: Callable[[Message], Properties]) -> Joiner:
    """Return what makes the frames of an endpoint's setting."""
    simple: dict[str, Joiner] = {"body": join_body, "key,body": join_key, "raw": join_raw(properties)}
    return simple.get(frames) or join_headers(properties)
