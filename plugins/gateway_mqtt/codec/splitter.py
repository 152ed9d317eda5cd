"""Where does a packet begin and end in a stream?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from gateway_mqtt.codec.names import MAX_LENGTH, MalformedPacket, broken


def too_long(length: int, limit: int, level: int = 4) -> MalformedPacket:
    """Return the error for a packet that exceeds the receiver's limit."""
    return broken(level, f"a packet of {length} bytes is beyond the limit of {limit}", "§2.2.3", "[MQTT5-3.2.2-15]", 0x95)


LONG_LENGTH = ("a remaining length of more than four bytes or with idle digits", "§2.2.3")


def no_length(level: int = 4) -> MalformedPacket:
    """Return the error for a remaining length that is none."""
    return broken(level, *LONG_LENGTH, "[MQTT5-1.5.5-1]")


class Splitter:
    """Cuts a stream into packets; for the way up to the CONNECT, and for clients.

    Args:
        limit: bytes after the remaining length that one packet may have.
        level: of the connection, to name what is broken.
    """

    __slots__ = ("_data", "level", "limit")

    def __init__(self, limit: int = MAX_LENGTH, level: int = 4) -> None:
        self.limit: int = limit
        self.level: int = level
        self._data: bytearray = bytearray()

    @property
    def type(self) -> int | None:
        """Type of the packet that is next; None: nothing of it is there."""
        return self._data[0] >> 4 if self._data else None

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._data += data

    def next(self) -> tuple[int, bytes] | None:
        """Return the next packet's first byte and payload; None: it is not complete.

        Raises:
            MalformedPacket: the remaining length is not one, or beyond the limit.
        """
        data = self._data
        length = 0
        for at in range(1, min(len(data), 5)):
            length |= (data[at] & 127) << 7 * (at - 1)
            if data[at] < 128:
                start = at + 1
                break
        else:
            if len(data) >= 5:
                raise no_length(self.level)
            return None
        if start > 2 and not data[start - 1]:
            raise no_length(self.level)
        if length > self.limit:
            raise too_long(length, self.limit, self.level)
        if len(data) < start + length:
            return None
        head, payload = data[0], bytes(data[start : start + length])
        del data[: start + length]
        return head, payload

    def rest(self) -> bytes:
        """Return what was received after the last packet, and forget it."""
        data = bytes(self._data)
        self._data.clear()
        return data
