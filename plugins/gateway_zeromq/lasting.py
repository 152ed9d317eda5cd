"""How does a publisher that has no retain flag say that a message is its key's last value? By a header."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.api import (
    NO_PROPERTIES,
    NOT_TOPIC,
    OWN_KEYS,
    Address,
    PreconditionFailed,
    Properties,
    decode_properties,
    encode_properties,
)

HEADER: Final = "x-retain"
"""True: it becomes the last value of its key; false: it does not, whatever the endpoint's setting. It is taken off the message."""
_IN_WIRE: Final = HEADER.encode()


def check_kept(address: Address) -> None:
    """Refuse to retain where there are no last values, or where they are the broker's own.

    Raises:
        PreconditionFailed: nothing is retained there.
    """
    if address.exchange in NOT_TOPIC:
        raise PreconditionFailed(f"last values are a topic exchange's, and {address.exchange!r} is none")
    if address.routing_key.startswith(OWN_KEYS):
        raise PreconditionFailed(f"last values of keys that begin with {OWN_KEYS} are the broker's own")


def take_retain(wire: bytes, *, default: bool = False) -> tuple[bool, bytes]:
    """Return whether a message is to be retained, and its properties without what says so.

    Args:
        wire: properties in the common form.
        default: what is meant if nothing is said.

    Raises:
        PreconditionFailed: the header says neither true nor false.

    Cost: a search for the header's name; the properties are decoded only if it is found.
    """
    if _IN_WIRE not in wire:
        return default, wire
    said = decode_properties(wire)
    if said.headers is None or HEADER not in said.headers:
        return default, wire
    left: dict[str, Any] = dict(said.headers)
    retain = left.pop(HEADER)
    if not isinstance(retain, bool):
        raise PreconditionFailed(f"the header {HEADER} must be true or false, not {retain!r:.40}")
    rest: Properties = msgspec.structs.replace(said, headers=left or None)
    return retain, b"" if rest == NO_PROPERTIES else encode_properties(rest)
