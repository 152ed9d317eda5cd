"""What is a Majordomo request or reply in the common model, and back?"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.api import COMMON, NO_PROPERTIES, TOPIC_EXCHANGE, Address, Message, Properties, encode_properties, reply_address
from gateway_zeromq.mdp.codec import Version

WIRE_TAG: Final = "mdp"
"""Who wrote `Message.wire`: an `Origin`, as msgpack. No other front-end can, so nobody can pretend that a client has asked."""
MULTIPART: Final = "application/vnd.zeromq.multipart"
"""Content type of a body that is several frames: a msgpack array of them."""
PARTIAL: Final = "partial"
"""Type of a reply after which others come."""
REPLIES: Final = "mdp.reply."
"""Keys of the topic exchange under which those who are no Majordomo workers answer clients begin so."""
_KEY_WORDS = 7

_pack = msgspec.msgpack.Encoder().encode
_unpack_frames = msgspec.msgpack.Decoder(list[bytes]).decode


class Origin(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Who asked: all that is needed to answer, as long as the client has not gone.

    Args:
        endpoint: word that names the endpoint at which it asked.
        boot: word that names the broker's start.
        client: its routing id.
        version: of Majordomo, ``0.1`` or ``0.2`` times ten.
        enveloped: whether an empty frame comes first.
        service: what it asked for.
        number: of the request, at this endpoint.
        multipart: the body is several frames.
    """

    endpoint: str
    boot: str
    client: bytes
    version: int
    enveloped: bool
    service: str
    number: int = 0
    multipart: bool = False

    @property
    def dialect(self) -> Version:
        """The version."""
        return Version.V01 if self.version == 1 else Version.V02

    @property
    def is_named(self) -> bool:
        """The client has chosen its routing id itself, and comes back under it (RFC 28/REQREP: others begin with a zero)."""
        return self.client[:1] != b"\0"


_decode_origin = msgspec.msgpack.Decoder(Origin).decode


def origin_of(wire: bytes) -> Origin:
    """Read what `encode_origin` wrote."""
    return _decode_origin(wire)


def encode_origin(origin: Origin) -> bytes:
    """Return the bytes of `Message.wire`."""
    return _pack(origin)


def read_wire(wire: bytes) -> Properties:
    """Return in the common form what is known of a request (a `gateway.api.WireDecoder`)."""
    origin = origin_of(wire)
    return Properties(
        content_type=MULTIPART if origin.multipart else None,
        correlation_id=str(origin.number),
        reply_to=reply_address(TOPIC_EXCHANGE, reply_key(origin)),
    )


# -- keys of replies


def word(name: str) -> str:
    """Return a word for use in keys that stands for a name."""
    return _text(name.encode())


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def reply_key(origin: Origin) -> str:
    """Return the key under which a client is answered by those who are no Majordomo workers."""
    how = f"{origin.version}{'e' if origin.enveloped else ''}"
    return f"{REPLIES}{origin.endpoint}.{origin.boot}.{_text(origin.client)}.{how}.{word(origin.service)}"


def origin_of_key(key: str) -> Origin | None:
    """Return whom a key answers; None: nobody."""
    words = key.split(".")
    if not key.startswith(REPLIES) or len(words) != _KEY_WORDS or words[5] not in ("1", "1e", "2", "2e"):
        return None
    try:
        client, service = _bytes(words[4]), _bytes(words[6]).decode()
    except ValueError:
        return None
    return Origin(words[2], words[3], client, int(words[5][0]), words[5].endswith("e"), service) if client else None


# -- bodies


def body_of(frames: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return frames as one body, and whether it is several."""
    return (frames[0], False) if len(frames) == 1 else (_pack(frames), True)


def frames_of(body: bytes, *, multipart: bool) -> list[bytes]:
    """Return the frames of a body."""
    if not multipart:
        return [body]
    try:
        return _unpack_frames(body) or [body]
    except msgspec.MsgspecError:  # another publisher's word for something else
        return [body]


def reply_message(address: Address, request: Message, asked: Properties, frames: Sequence[bytes], *, final: bool) -> Message:
    """Return the reply to a request of somebody who is no Majordomo client here. It lasts if the request does."""
    body, multipart = body_of(frames)
    properties = Properties(
        content_type=MULTIPART if multipart else None,
        correlation_id=asked.correlation_id,
        type=None if final else PARTIAL,
    )
    tag = COMMON if properties != NO_PROPERTIES else ""
    return Message(address, body, request.persistent, tag, encode_properties(properties) if tag else b"")
