"""Where does a frame begin and end in a stream, and which content belongs to which publish?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from typing import Any, Final, Protocol

from gateway_amqp.codec.names import (
    BASIC_ACK,
    BASIC_PUBLISH,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CONTENT_CLASS,
    FRAME_BODY,
    FRAME_END,
    FRAME_ERROR,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    RESOURCE_ERROR,
    UNEXPECTED_FRAME,
    HardError,
    syntax_error,
)
from gateway_amqp.codec.reading import (
    ACK,
    CONTENT,
    FRAME,
    HEADER,
    INTERPRETED,
    METHOD,
    PART,
    ack_at,
    header_at,
    method_at,
    part_at,
    snippet,
)

FIRST_FRAME_MAX: Final = 8192
"""Bytes of a frame's payload before anything was agreed on."""
MOST_PARTS: Final = 1_024
"""A frame may come a byte at a time, and each object that is kept costs 50 more."""
MAX_ADDRESS: Final = 515
"""Bytes that a Basic.Publish has at most behind its class and method id: a number, two short strings, the bits."""


class ChannelSink(Protocol):
    """What a channel is to the splitter."""

    def on_method(self, method: int, arguments: bytes) -> None:
        """Take a method; ``arguments`` is what follows the class and method id."""

    def on_publish(self, arguments: bytes, properties: bytes, body: bytes) -> None:
        """Take a Basic.Publish with its content; ``properties`` begin with the property flags."""

    def on_ack(self, delivery_tag: int, multiple: bool) -> None:
        """Take a Basic.Ack."""

    def on_too_large(self, size: int) -> None:
        """Learn that a publish came whose body is larger than the connection may send; it is swallowed."""


class Stray(Protocol):
    """What gets frames that belong to no channel."""

    def on_stray(self, number: int, method: int, arguments: bytes) -> None:
        """Take a method for a channel that is not open, 0 included."""

    def on_heartbeat(self) -> None:
        """Learn that the peer is there."""


class _Content:
    """A publish whose content has not come whole."""

    __slots__ = ("arguments", "body", "left", "properties", "size", "swallowed")

    def __init__(self, arguments: bytes) -> None:
        self.arguments: bytes = arguments
        self.properties: bytes | None = None  # None: its header has not come
        self.body: bytearray = bytearray()
        self.size: int = 0
        self.left: int = 0
        self.swallowed: bool = False

    def held(self) -> int:
        """Return the bytes that are kept for it."""
        return len(self.arguments) + len(self.body) + (len(self.properties) if self.properties is not None else 0)


class Splitter:
    """Cuts a stream into frames, and puts publishes and their contents together.

    Args:
        stray: gets methods for numbers that are not in ``channels``, and heartbeats.
        channels: by number; callbacks may put into it and take from it.
        most_bytes: that a body may have.

    Attributes:
        frame_max: bytes that a frame's payload may have: RabbitMQ leaves it to clients whether they count the 8 around it.
        over: a callback sets it to be fed nothing more; so does a stream out of step.
        held_bytes: of frames and contents that have not come whole.
    """

    __slots__ = (
        "_contents", "_held", "_kept", "_need", "_parts", "channels", "frame_max", "most_bytes", "over", "stray",
    )  # fmt: skip

    def __init__(self, stray: Stray, channels: dict[int, Any], most_bytes: int, frame_max: int = FIRST_FRAME_MAX) -> None:
        self.stray: Stray = stray
        self.channels: dict[int, Any] = channels
        self.most_bytes: int = most_bytes
        self.frame_max: int = frame_max
        self.over: bool = False
        self._contents: dict[int, _Content] = {}
        self._held: int = 0  # by contents
        self._parts: list[bytes] = []
        self._kept: int = 0  # in parts
        self._need: int = 0  # bytes with which a frame is whole

    @property
    def held_bytes(self) -> int:
        """Bytes of frames and contents that have not come whole."""
        return self._held + self._kept

    def feed(self, data: bytes) -> bool:
        """Take what was received, and call what is whole.

        If a callback raises, what follows its frame is kept: the next call (of ``feed(b"")`` too) goes on there.

        Returns:
            whether a frame was whole.

        Raises:
            HardError: the stream breaks the protocol; what is wrong is dropped, and `over` is set if the stream is out of step.
        """
        if self._kept:
            self._parts.append(data)
            self._kept += len(data)
            if self._kept < self._need:
                if len(self._parts) > MOST_PARTS:
                    self._parts = [b"".join(self._parts)]
                return False
            data = b"".join(self._parts)
            self._parts.clear()
            self._kept = 0
        return self._cut(data, len(data))

    def _cut(self, data: bytes, size: int) -> bool:  # noqa: C901, PLR0912, PLR0915 - the loop that all input goes through
        """Call what is whole in the data, and keep the rest."""
        at = need = 0
        kind: int
        number: int
        length: int
        method: int
        other: int
        class_: int
        body_size: int
        mark: int
        tag: int
        multiple: int
        last_number = last_size = 0  # of the publish before
        last_arguments = last_properties = b""
        channels = self.channels
        try:
            while not self.over:
                start = at
                left = size - at
                if left < 12:
                    if left < 7:
                        need = 7
                        break
                    kind, number, length = FRAME(data, at)
                    method = 0
                else:
                    kind, number, length, method = METHOD(data, at) if INTERPRETED else method_at(data, at)
                if length > self.frame_max:
                    raise self._out_of_step(kind, b"", f"{{frame_too_large,{length},{self.frame_max - 8}}}")
                end = at + 7 + length
                if end >= size:
                    need = length + 8
                    break
                if data[end] != FRAME_END:
                    raise self._out_of_step(kind, data[at + 7 : end], f"{{invalid_frame_end_marker,{data[end]}}}")
                at = end + 1
                if kind != FRAME_METHOD or length < 4:
                    self._other(kind, number, data[start + 7 : end])
                    continue
                if number in self._contents:
                    self._interrupted(number, method)
                channel = channels.get(number)
                if channel is None:
                    self.stray.on_stray(number, method, data[start + 11 : end])
                    continue
                if method != BASIC_PUBLISH:
                    if method == BASIC_ACK and length == 13:
                        tag, multiple = ACK(data, start + 11) if INTERPRETED else ack_at(data, start + 11)
                        channel.on_ack(tag, multiple & 1 != 0)
                    else:
                        channel.on_method(method, data[start + 11 : end])
                    continue
                arguments = data[start + 11 : end]
                if arguments == last_arguments:
                    arguments = last_arguments  # its hash is known
                if size - at < 19:
                    self._begin(number, arguments)
                    continue
                kind, other, length, class_, body_size = HEADER(data, at) if INTERPRETED else header_at(data, at)
                body_at = at + length + 15
                body_end = body_at + body_size
                if (
                    kind != FRAME_HEADER or other != number or class_ != CONTENT_CLASS or not 14 <= length <= self.frame_max
                    or not 0 < body_size <= self.most_bytes or body_end >= size
                ):  # fmt: skip
                    self._begin(number, arguments)
                    continue
                mark, kind, other, length = PART(data, body_at - 8) if INTERPRETED else part_at(data, body_at - 8)
                if (
                    mark != FRAME_END or kind != FRAME_BODY or other != number or length != body_size
                    or length > self.frame_max or data[body_end] != FRAME_END or len(arguments) > MAX_ADDRESS
                ):  # fmt: skip
                    self._begin(number, arguments)
                    continue
                properties = data[at + 19 : body_at - 8]
                at = body_end + 1
                if (
                    body_size != last_size
                    or number != last_number
                    or arguments is not last_arguments
                    or properties != last_properties
                ):
                    last_number, last_size, last_arguments, last_properties = number, body_size, arguments, properties
                    channel.on_publish(arguments, properties, data[body_at:body_end])
                    continue
                channel.on_publish(arguments, last_properties, data[body_at:body_end])
                # Two were the same but for their bodies: look for more.
                front = data[start:body_at]
                whole = body_end + 1 - start
                fixed = body_at - start
                while data[at : at + fixed] == front and at + whole <= size and data[at + whole - 1] == FRAME_END:
                    channel = channels.get(number)
                    if channel is None or self.over:
                        break
                    at += whole
                    channel.on_publish(arguments, last_properties, data[at - whole + fixed : at - 1])
        finally:
            self._keep(data, at, need)
        return at > 0

    def _keep(self, data: bytes, at: int, need: int) -> None:
        """Keep what is not whole."""
        if at < len(data) and not self.over:
            self._parts.append(data[at:] if at else data)
            self._kept = len(data) - at
            self._need = need

    def _other(self, kind: int, number: int, payload: bytes) -> None:
        """Take a frame that is no method."""
        if kind == FRAME_HEARTBEAT and not number and not payload:
            self.stray.on_heartbeat()
        elif kind in {FRAME_HEADER, FRAME_BODY} and number:
            self._content(kind, number, payload)
        elif kind in {FRAME_HEADER, FRAME_BODY} or (kind == FRAME_HEARTBEAT and not payload):
            raise HardError(UNEXPECTED_FRAME, f"type {kind}, {snippet(payload)}")
        else:
            raise self._out_of_step(kind, payload, "unknown_frame")

    def _begin(self, number: int, arguments: bytes) -> None:
        """Take a publish whose content is to come."""
        if len(arguments) > MAX_ADDRESS:
            raise syntax_error("basic.publish is longer than its arguments", BASIC_PUBLISH)
        self._contents[number] = _Content(arguments)
        self._hold(len(arguments))

    def _hold(self, size: int) -> None:
        """Count bytes that are kept for contents."""
        self._held += size
        if self._held > 2 * self.most_bytes + MAX_ADDRESS:
            self.stop()
            text = f"unfinished contents of more than {2 * self.most_bytes} bytes"
            raise HardError(RESOURCE_ERROR, text, BASIC_PUBLISH)

    def stop(self) -> None:
        """Take nothing more, and forget what was begun; it may be called in a callback."""
        self.over = True
        self._contents.clear()
        self._parts.clear()
        self._held = self._kept = 0

    def _interrupted(self, number: int, method: int) -> None:
        """Take a method where content is awaited: only the end of the channel is right there."""
        content = self._contents.pop(number)
        self._held -= content.held()
        if method not in {CHANNEL_CLOSE, CHANNEL_CLOSE_OK}:
            raise unexpected(content)

    def _content(self, kind: int, number: int, payload: bytes) -> None:
        """Take a content frame."""
        content = self._contents.get(number)
        if content is None:
            raise HardError(UNEXPECTED_FRAME, "expected method frame, got non method frame instead")
        if (kind == FRAME_HEADER) != (content.properties is None) or (kind == FRAME_HEADER and len(payload) < 12):
            self._drop(number, content)
            raise unexpected(content)
        if kind == FRAME_HEADER:
            self._header(number, content, payload)
        else:
            self._body(number, content, payload)

    def _drop(self, number: int, content: _Content) -> None:
        """Forget a content."""
        self._held -= content.held()
        del self._contents[number]

    def _header(self, number: int, content: _Content, payload: bytes) -> None:
        """Take the header of a content."""
        class_, size = CONTENT(payload)
        if class_ != CONTENT_CLASS:
            self._drop(number, content)
            if class_ & 0xFFFF:
                raise unexpected(content)
            text = f"expected content header for class 60, got one for class {class_ >> 16} instead"
            raise HardError(UNEXPECTED_FRAME, text, BASIC_PUBLISH)
        if len(payload) < 14:
            self._drop(number, content)
            raise syntax_error("a content header without property flags", BASIC_PUBLISH)
        content.properties = payload[12:]
        content.size = content.left = size
        self._hold(len(content.properties))
        if size > self.most_bytes:
            content.swallowed = True
            channel = self.channels.get(number)
            if channel is not None:
                channel.on_too_large(size)
        elif not size:
            self._whole(number, content, b"")

    def _body(self, number: int, content: _Content, payload: bytes) -> None:
        """Take a part of a body."""
        content.left -= len(payload)
        if content.left < 0:
            self._drop(number, content)
            text = f"a content of {content.size} bytes was announced, {content.size - content.left} came"
            raise HardError(FRAME_ERROR, text, BASIC_PUBLISH)
        if not content.left and not content.body:
            self._whole(number, content, payload)
            return
        if not content.swallowed:
            content.body += payload
            self._hold(len(payload))
        if not content.left:
            self._whole(number, content, bytes(content.body))

    def _whole(self, number: int, content: _Content, body: bytes) -> None:
        """Hand a content over that is whole."""
        self._drop(number, content)
        channel = self.channels.get(number)
        properties = content.properties
        if channel is not None and not content.swallowed and properties is not None:
            channel.on_publish(content.arguments, properties, body)

    def _out_of_step(self, kind: int, payload: bytes, what: str) -> HardError:
        """Return the error for bytes after which nobody knows where a frame begins."""
        self.stop()
        return HardError(FRAME_ERROR, f"type {kind}, {snippet(payload)}: {what}")


def unexpected(content: _Content) -> HardError:
    """Return the error for a frame that is not the part of a content which is awaited."""
    if content.properties is None:
        text = "expected content header for class 60, got non content header frame instead"
    else:
        text = "expected content body, got non content body frame instead"
    return HardError(UNEXPECTED_FRAME, text, BASIC_PUBLISH)
