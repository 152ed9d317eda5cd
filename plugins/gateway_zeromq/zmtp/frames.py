"""How do bytes become ZMTP frames, and back?"""

from __future__ import annotations

from typing import Final, NamedTuple

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

LONGEST_SHORT: Final = 255
"""Bytes of a body whose size fits one octet."""
_SHORT_HEAD: Final = 2
_LONG_HEAD: Final = 9

HEADS: Final = tuple(bytes((0, size)) for size in range(LONGEST_SHORT + 1))
"""What stands before the last frame of a message, by size, if it is short."""


class Violation(Exception):
    """A peer broke the protocol; the text says how. Its connection is of no use any more."""


class Limits(NamedTuple):
    """What a peer may send.

    Args:
        command_bytes: of the body of one command.
        frame_bytes: of one frame of a message.
        message_bytes: of all frames of a message.
        frames: of a message.
    """

    command_bytes: int = 4_096
    frame_bytes: int = 1 << 24
    message_bytes: int = 1 << 24
    frames: int = 1_024


def head(flags: int, size: int) -> bytes:
    """Return flags and size as they stand before a body of so many bytes."""
    if size <= LONGEST_SHORT:
        return bytes((flags, size))
    return bytes((flags | LONG,)) + size.to_bytes(8, "big")


def frame(flags: int, body: bytes) -> bytes:
    """Return one frame; `flags` without LONG."""
    return head(flags, len(body)) + body


def message(frames: list[bytes]) -> bytes:
    """Return the frames of one message."""
    last = len(frames) - 1
    return b"".join([frame(MORE if number < last else 0, body) for number, body in enumerate(frames)])


class Splitter:
    """Cuts what comes into frames: `add` bytes, then `take` until there is nothing whole.

    Sizes are looked at before the bytes have come: no more is kept than the limits allow, and what is added at once.

    Args:
        limits: what is too much.
        commands: there are commands (there were none in ZMTP 2).
    """

    __slots__ = ("_at", "_commands", "_data", "_frames", "_limits", "_size")

    def __init__(self, limits: Limits, *, commands: bool = True) -> None:
        self._limits = limits
        self._commands = commands
        self._data = bytearray()
        self._at = 0
        self._frames = self._size = 0  # of the message that is not whole yet

    def add(self, data: bytes) -> None:
        """Take bytes as they came."""
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def rest(self) -> bytes:
        """Return what is not taken yet, and forget it."""
        rest = bytes(self._data[self._at :])
        self._data.clear()
        self._at = 0
        return rest

    def take(self) -> tuple[int, bytes] | None:
        """Return flags (without LONG) and body of the next frame; None: it has not come yet, or not all of it.

        Raises:
            Violation: flags that there are not, or too much of something.
        """
        data, at = self._data, self._at
        have = len(data) - at
        if not have:
            return None
        flags = data[at]
        self._check_flags(flags)
        if flags & LONG:
            if have < _LONG_HEAD:
                return None
            start = at + _LONG_HEAD
            size = int.from_bytes(data[at + 1 : start], "big")
        else:
            if have < _SHORT_HEAD:
                return None
            start = at + _SHORT_HEAD
            size = data[at + 1]
        self._check_size(flags, size)
        end = start + size
        if len(data) < end:
            return None
        self._at = end
        flags &= ~LONG
        if not flags & COMMAND:
            self._frames, self._size = (self._frames + 1, self._size + size) if flags & MORE else (0, 0)
        return flags, bytes(data[start:end])

    def _check_flags(self, flags: int) -> None:
        if flags > (MORE | LONG | COMMAND if self._commands else MORE | LONG):
            raise Violation(f"flags {flags:#04x}: reserved bits are set")
        if flags & COMMAND and flags & MORE:
            raise Violation(f"flags {flags:#04x}: a command has one frame")
        if flags & COMMAND and self._frames:
            raise Violation("a command between the frames of a message")

    def _check_size(self, flags: int, size: int) -> None:
        limits = self._limits
        if flags & COMMAND:
            if size > limits.command_bytes:
                raise Violation(f"a command of {size} bytes; at most {limits.command_bytes} are taken")
        elif size > limits.frame_bytes:
            raise Violation(f"a frame of {size} bytes; at most {limits.frame_bytes} are taken")
        elif self._size + size > limits.message_bytes:
            raise Violation(f"a message of more than {limits.message_bytes} bytes")
        elif self._frames >= limits.frames:
            raise Violation(f"a message of more than {limits.frames} frames")
