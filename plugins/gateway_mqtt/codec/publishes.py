"""How many publishes on one topic come one behind the other, and where are the parts of each?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from gateway_mqtt.codec.names import NAMES, PUBLISH, MalformedPacket, broken, malformed


def run_of(data: bytes, at: int, start: int, body: int, end: int, limit: int) -> tuple[int, int, int]:
    """Look how many packets like a PUBLISH of QoS 0 come behind it: the same first byte, the same topic, complete.

    What is unusual ends the run, whether it is an error or not: a length of more than two digits, with an idle one, or beyond the
    limit, unless the packet before had the same.

    Args:
        data: what was received.
        at, start, body, end: of the PUBLISH: where it begins, its topic field begins, its body begins, and it ends.
        limit: bytes after the remaining length that one packet may have; at least 127.

    Returns:
        where the run ends, how many packets it has (at least 1), and how many bytes the longest body.
    """
    head = data[at]
    field = data[start:body]
    front = data[at:body]
    size = len(data)
    fields = len(field)
    step = end - at
    longest = end - body
    count = 0
    at = end
    while at <= size:
        end = at
        count += 1
        if data[at : at + len(front)] == front:  # as long as the one before
            at += step
            continue
        if size - at < 2 or data[at] != head:
            break
        length = data[at + 1]
        start = at + 2
        if length > 127:
            digit = data[start] if start < size else 0
            length = length & 127 | digit << 7
            start += 1
            if not 0 < digit < 128 or length > limit:
                break
        if length < fields or start + length > size or data[start : start + fields] != field:
            break
        front = data[at : start + fields]
        step = start + length - at
        at += step
        if length - fields > longest:  # noqa: PLR1730 - max() is slow
            longest = length - fields
    return end, count, longest


def parts_of(packets: bytes, field_size: int) -> list[tuple[bytes, bytes]]:
    """Return the packets of a run, and their bodies.

    Args:
        field_size: bytes between the remaining length and the body.
    """
    parts: list[tuple[bytes, bytes]] = []
    size = len(packets)
    at = 0
    while at < size:
        start = at + 2
        length = packets[at + 1]
        shift = 0
        while length >> shift > 127:
            shift += 7
            length = length & (1 << shift) - 1 | packets[start] << shift
            start += 1
        end = start + length
        parts.append((packets[at:end], packets[start + field_size : end]))
        at = end
    return parts


def varint(data: bytes, at: int, level: int) -> tuple[int, int]:
    """Return where a variable byte integer ends, and its value.

    Raises:
        MalformedPacket: it does not end, or has more digits than it needs, or than four.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        if at == len(data):
            raise short(level)
        digit = data[at]
        at += 1
        value |= (digit & 127) << shift
        if digit < 128 and (digit or not shift):
            return at, value
        if not digit:
            break
    raise malformed("a property length of more than four bytes or with idle digits", "[MQTT5-1.5.5-1]")


def short(level: int) -> MalformedPacket:
    """Return what is to be raised for a packet that ends too soon."""
    return broken(level, "a packet is shorter than its fields", "[MQTT-4.8.0-1]", "[MQTT5-4.13.1-1]")


def unidentified(type_: int, level: int) -> MalformedPacket:
    """Return what is to be raised for packet identifier 0; a PUBLISH can be read all the same, so it is not called malformed."""
    code = 0x82 if type_ == PUBLISH else 0x81
    return broken(level, f"{NAMES[type_]} with packet identifier 0", "[MQTT-2.3.1-1]", "[MQTT5-2.2.1-3]", code)
