"""How does a run of bytes travel in WebSocket frames, and come out of them again?"""

from __future__ import annotations

import struct
from typing import Final

from gateway.errors import ProtocolViolation

MAX_FRAME_BYTES: Final = 1 << 28
"""More than any packet of a protocol; a frame is never kept whole, so this bounds nonsense, not memory."""

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_SHORT: Final = 125
_TWO_BYTES: Final = 126
_LONGEST_SHORT: Final = 65_535

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
BAD_TEXT: Final = 1007
TOO_BIG: Final = 1009
_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_OWN: Final = range(3000, 5000)


class BadFrame(ProtocolViolation):
    """A peer broke the framing; `code` is what its close frame says."""

    def __init__(self, code: int, reason: str, spec: str) -> None:
        super().__init__(reason, spec)
        self.code = code


class FrameReader:
    """Takes masked frames, cut anywhere, and gives the bytes that their binary messages carry.

    Attributes:
        ping: payload of the last ping that is unanswered; only that one needs a pong (RFC 6455 §5.5.3).
        close_code: what the peer's close frame said; 0: it said nothing; None: there was none. Nothing after it is read.
    """

    __slots__ = ("_buffer", "_left", "_mask", "_within", "close_code", "ping")

    def __init__(self) -> None:
        self._buffer: bytes = b""  # the beginning of a head, or of a control frame
        self._left: int = 0  # of the data frame that is being read
        self._mask: bytes = b""
        self._within: bool = False  # a message has begun, and goes on in further frames
        self.ping: bytes | None = None
        self.close_code: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what the binary frames in `data` carry, as far as it has come.

        Raises:
            BadFrame: with the code of the close frame that says it. What came before it is lost with the connection.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        plain: list[bytes] = []
        at, end = 0, len(data)
        while at < end and self.close_code is None:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                plain.append(self._part(piece))  # [MQTT-6.0.0-2]
                continue
            after = self._head(data, at, end)
            if after < 0:
                self._buffer = data[at:]
                break
            at = after
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _part(self, piece: bytes) -> bytes:
        """Unmask what has come of a data frame."""
        size = len(piece)
        mask = self._mask
        self._left -= size
        if self._left and size & 3:
            self._mask = mask[size & 3 :] + mask[: size & 3]
        return unmask(piece, mask)

    def _head(self, data: bytes, at: int, end: int) -> int:
        """Read a head, and all of a control frame; return where the next thing begins; -1: it is not whole yet."""
        if end - at < 2:  # noqa: PLR2004 - the shortest head
            return -1
        first, second = data[at], data[at + 1]
        opcode = first & 0x0F
        self._check(first, second, opcode)
        size = second & 0x7F
        at += 2
        if size >= _TWO_BYTES:
            width = 2 if size == _TWO_BYTES else 8
            if end - at < width:
                return -1
            size = int.from_bytes(data[at : at + width], "big")
            self._check_size(size, width)
            at += width
        if end - at < 4:  # noqa: PLR2004 - the mask
            return -1
        mask = data[at : at + 4]
        at += 4
        if opcode >= _CLOSE:
            if end - at < size:
                return -1
            self._control(opcode, unmask(data[at : at + size], mask))
            return at + size
        self._within = not first & _FIN
        self._left = size
        self._mask = mask
        return at

    def _check(self, first: int, second: int, opcode: int) -> None:
        if first & _RESERVED:
            raise BadFrame(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on", "RFC 6455 §5.2")
        if not second & _MASKED:
            raise BadFrame(PROTOCOL_ERROR, "a client's frame is not masked", "RFC 6455 §5.1")
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise BadFrame(PROTOCOL_ERROR, f"opcode {opcode} is none", "RFC 6455 §5.2")
            if not first & _FIN or second & 0x7F > _SHORT:
                raise BadFrame(PROTOCOL_ERROR, "a control frame is fragmented or too long", "RFC 6455 §5.5")
        elif opcode == _TEXT:
            raise BadFrame(UNSUPPORTED, "a text frame: only binary ones carry packets", "[MQTT-6.0.0-1]")
        elif opcode > _BINARY:
            raise BadFrame(PROTOCOL_ERROR, f"opcode {opcode} is none", "RFC 6455 §5.2")
        elif (opcode == _CONTINUATION) is not self._within:
            reason = "a new message begins within another" if self._within else "nothing is there to be continued"
            raise BadFrame(PROTOCOL_ERROR, reason, "RFC 6455 §5.4")

    @staticmethod
    def _check_size(size: int, width: int) -> None:
        if size <= (_SHORT if width == 2 else _LONGEST_SHORT):  # noqa: PLR2004
            raise BadFrame(PROTOCOL_ERROR, "a length is not in its shortest form", "RFC 6455 §5.2")
        if size > MAX_FRAME_BYTES:
            raise BadFrame(TOO_BIG, f"a frame of {size} bytes: at most {MAX_FRAME_BYTES} are taken", "RFC 6455 §7.4.1")

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self.ping = payload
        elif opcode == _CLOSE:
            self.close_code = _close_code(payload)


def _close_code(payload: bytes) -> int:
    if not payload:
        return 0
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _SENDABLE or code in _OWN):
        raise BadFrame(PROTOCOL_ERROR, "a close frame without a valid code", "RFC 6455 §7.4")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise BadFrame(BAD_TEXT, "a close frame's reason is no UTF-8", "RFC 6455 §5.5.1") from None
    return code


_XOR: Final = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))
_FEW: Final = 512
"""Up to about this one long number is the fastest way to unmask; above it four tables are."""


def unmask(data: bytes, mask: bytes) -> bytes:
    """Return `data` with the mask taken off, or put on. Cost: a few passes over it, none of them in Python."""
    size = len(data)
    if size <= _FEW:
        key = (mask * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
    result = bytearray(size)
    for at in range(4):
        result[at::4] = data[at::4].translate(_XOR[mask[at]])
    return bytes(result)


def binary_frame(data: bytes) -> bytes:
    """Return a whole message of one binary frame, as a server sends it."""
    size = len(data)
    if size <= _SHORT:
        return bytes((_FIN | _BINARY, size)) + data
    if size <= _LONGEST_SHORT:
        return struct.pack("!BBH", _FIN | _BINARY, _TWO_BYTES, size) + data
    return struct.pack("!BBQ", _FIN | _BINARY, 127, size) + data


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return bytes((_FIN | _PONG, len(payload))) + payload


def close_frame(code: int) -> bytes:
    """Return a close frame; 0: without a code."""
    return struct.pack("!BBH", _FIN | _CLOSE, 2, code) if code else bytes((_FIN | _CLOSE, 0))
