"""What does an AMQP client read from the bytes of its connection, and when was it said?

Frames are made and read by pamqp, which knows nothing of the front-end's own code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import base, body, commands, frame, header, heartbeat

from tests.simulation.ledger import Wrong
from tests.simulation.program import text_of

if TYPE_CHECKING:
    from tests.simulation.amqp_client import AmqpClient
    from tests.simulation.wires import SimConnection

HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = frame.marshal(heartbeat.Heartbeat(), 0)
AROUND_FRAME = 8
"""Bytes of a frame besides its payload."""
END = 0xCE
CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True, "connection.blocked": True}
WITH_CONTENT = (commands.Basic.Deliver, commands.Basic.GetOk, commands.Basic.Return)


class Content(NamedTuple):
    """A message as it was heard. ``method``: Deliver, GetOk or Return."""

    method: Any
    properties: Any
    body: bytes

    @property
    def text(self) -> str:
        return text_of(self.body)


def published(
    number: int, exchange: str, key: str, data: bytes, frame_max: int, *, mandatory: bool = False, **fields: Any
) -> bytes:
    """Return the frames of a publish; `fields`: its properties."""
    room = frame_max - AROUND_FRAME
    parts: list[Any] = [
        commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory),
        header.ContentHeader(0, len(data), commands.Basic.Properties(**fields)),
        *(body.ContentBody(data[at : at + room]) for at in range(0, len(data), room)),
    ]
    return b"".join(frame.marshal(part, number) for part in parts)


class Link:
    """One connection of a client: bytes out, frames in.

    The client is told twice: `AmqpClient.overheard` as soon as the broker has said it, which is when its promises count, and by
    `read` when the client gets to it.

    ``frame_max``: no frame may be larger.
    """

    def __init__(self, client: AmqpClient, connection: SimConnection, frame_max: int) -> None:
        self.connection = connection
        self.frame_max = frame_max
        self._client = client
        self._rest = b""
        self._begun: dict[int, list[Any]] = {}
        self._items: deque[tuple[int, int, Any]] = deque()
        self._said = self._taken = 0
        connection.overhear = self._overhear

    def say(self, number: int, *methods: base.Frame) -> None:
        self.connection.write(b"".join(frame.marshal(method, number) for method in methods))

    def read(self, most: int) -> Iterator[tuple[int, Any]]:
        """Yield channel and what is whole of so many bytes more."""
        self._taken += len(self.connection.read(most))
        while self._items and self._items[0][0] <= self._taken:
            _, number, what = self._items.popleft()
            yield number, what

    def _overhear(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while len(data) - at >= AROUND_FRAME:
            end = at + AROUND_FRAME + int.from_bytes(data[at + 3 : at + 7], "big")
            if end > len(data):
                break
            self._check(data[at:end])
            used, number, what = frame.unmarshal(data[at:end])
            at += used
            self._said += used
            whole = self._whole(number, what)
            if whole is not None:
                self._items.append((self._said, number, whole))
                self._client.overheard(number, whole)
        self._rest = data[at:]

    def _check(self, data: bytes) -> None:
        self._client.world.ledger.check(
            data[-1] == END and len(data) <= self.frame_max,
            f"{self._client.name} is sent a frame of {len(data)} bytes: {data[:40]!r}",
        )

    def _whole(self, number: int, what: Any) -> Any:
        """Return a method, or a message with all of its content; None: there is more to come."""
        if isinstance(what, WITH_CONTENT):
            self._begun[number] = [what, None, b""]
            return None
        begun = self._begun.get(number)
        if isinstance(what, header.ContentHeader):
            if begun is None:
                raise Wrong(f"{self._client.name} is sent a content header that follows nothing")
            begun[1] = what
        elif isinstance(what, body.ContentBody):
            if begun is None or begun[1] is None:
                raise Wrong(f"{self._client.name} is sent a body that follows nothing")
            begun[2] += what.value
        else:
            if begun is not None:
                raise Wrong(f"{self._client.name} is sent {what} amid a message")
            return what
        method, head, data = begun
        if len(data) < head.body_size:
            return None
        del self._begun[number]
        return Content(method, head.properties, data)
