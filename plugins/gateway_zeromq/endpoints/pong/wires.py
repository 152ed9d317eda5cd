"""How do messages become bytes on a ZMTP stream, many at a time?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from gateway.api import Message, Properties, swap_key
from gateway_zeromq.endpoints.frames import Joiner, joiner_of
from gateway_zeromq.zmtp.frames import HEADS, LONGEST_SHORT, MORE, head, message

if TYPE_CHECKING:
    from gateway_zeromq.endpoints.feed import Item

Writer: TypeAlias = "Callable[[Sequence[Item], list[bytes]], None]"
"""Appends the bytes of messages, in order, in as many parts as it likes."""


def write_bodies(items: Sequence[Item], parts: list[bytes]) -> None:
    """Write ``body``."""
    append, heads = parts.append, HEADS
    for item in items:
        body = item.message.body
        size = len(body)
        append(heads[size] if size <= LONGEST_SHORT else head(0, size))
        append(body)


def write_pairs(items: Sequence[Item], parts: list[bytes]) -> None:
    """Write ``key,body``."""
    append, heads = parts.append, HEADS
    for item in items:
        whole = item.message
        key = whole.address.routing_key.encode()
        append(head(MORE, len(key)))
        append(key)
        body = whole.body
        size = len(body)
        append(heads[size] if size <= LONGEST_SHORT else head(0, size))
        append(body)


def write_joined(join: Joiner, *, mqtt: bool) -> Writer:
    """Return what writes the frames that a joiner makes of each message. `mqtt`: keys are written so."""

    def write(items: Sequence[Item], parts: list[bytes]) -> None:
        for item in items:
            whole = item.message
            key = swap_key(whole.routing_key) if mqtt else whole.routing_key
            parts.append(message(join(whole, key.encode())))

    return write


def writer_of(frames: str, properties: Callable[[Message], Properties], *, mqtt: bool) -> Writer:
    """Return what writes messages as an endpoint's settings say (`frames`)."""
    if frames == "body":
        return write_bodies
    if frames == "key,body" and not mqtt:
        return write_pairs
    return write_joined(joiner_of(frames, properties), mqtt=mqtt)


def size_of(items: Sequence[Item]) -> int:
    """Return the bytes of their bodies."""
    return sum([len(item.message.body) for item in items])
