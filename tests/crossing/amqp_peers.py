"""An AMQP client on a real socket, made of what is not the broker's: pamqp for methods, py-amqp for properties and tables."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import trio
from amqp import Message as AmqpMessage
from amqp.serialization import decode_properties_basic
from pamqp import base, body, commands, frame

from tests.crossing.table import Known, is_utf8

PATIENCE_S = 30
MOST_FRAME = 131_072
BASIC = 60


class AmqpClient:
    """One connection with one channel, in confirm mode."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._read = bytearray()

    async def open(self) -> None:
        await self.stream.send_all(b"AMQP\0\0\x09\x01")
        assert isinstance(await self.method(), commands.Connection.Start)
        await self.say(commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"), 0)
        assert isinstance(await self.method(), commands.Connection.Tune)
        await self.say(commands.Connection.TuneOk(0, MOST_FRAME, 0), 0)
        await self.call(commands.Connection.Open("/"), 0)
        await self.call(commands.Channel.Open())
        await self.call(commands.Confirm.Select())

    async def say(self, method: base.Frame, channel: int = 1) -> None:
        await self.stream.send_all(frame.marshal(method, channel))

    async def call(self, method: base.Frame, channel: int = 1) -> Any:
        """Say something, and return the answer, which must be the one that the standard has for it."""
        await self.say(method, channel)
        answer = await self.method()
        assert answer.name in method.valid_responses, answer
        return answer

    async def queue(self, name: str, key: str) -> None:
        """Have a durable queue for a key of amq.topic."""
        await self.call(commands.Queue.Declare(queue=name, durable=True))
        await self.call(commands.Queue.Bind(queue=name, exchange="amq.topic", routing_key=key))

    async def consume(self, queue: str, *, no_ack: bool = False) -> None:
        await self.call(commands.Basic.Consume(queue=queue, consumer_tag="c", no_ack=no_ack))

    async def publish(self, exchange: str, key: str, payload: bytes, **properties: Any) -> None:
        """Publish, and wait for the confirm."""
        await self.post(exchange, key, payload, **properties)
        assert isinstance(await self.method(), commands.Basic.Ack)

    async def post(self, exchange: str, key: str, payload: bytes, **properties: Any) -> None:
        """Publish, in names of py-amqp."""
        section = AmqpMessage(payload, **properties)._serialize_properties()
        header = b"\0\x3c\0\0" + len(payload).to_bytes(8, "big") + section
        frames = [
            frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key), 1),
            b"\2\0\1" + len(header).to_bytes(4, "big") + header + b"\xce",
        ]
        if payload:
            frames.append(frame.marshal(body.ContentBody(payload), 1))
        await self.stream.send_all(b"".join(frames))

    async def message(self) -> tuple[Any, Known, bytes]:
        """Return the Deliver, the properties and the body of the next message. Confirms may come before it."""
        deliver = await self.method()
        while isinstance(deliver, commands.Basic.Ack):
            deliver = await self.method()
        assert isinstance(deliver, commands.Basic.Deliver), deliver
        header = (await self._frame())[7:-1]
        assert int.from_bytes(header[:2], "big") == BASIC
        size = int.from_bytes(header[4:12], "big")
        properties, end = decode_properties_basic(header, 12)
        assert end == len(header)
        payload = b""
        while len(payload) < size:
            payload += (await self._frame())[7:-1]
        return deliver, properties, payload

    async def ack(self, deliver: Any) -> None:
        await self.say(commands.Basic.Ack(deliver.delivery_tag))

    async def method(self) -> Any:
        data = await self._frame()
        return frame.unmarshal(data)[2]

    async def leave(self) -> None:
        """Close the connection, when all that was said is carried out."""
        await self.call(commands.Connection.Close(200, "", 0, 0), 0)
        await self.stream.aclose()

    async def _frame(self) -> bytes:
        with trio.fail_after(PATIENCE_S):
            while True:
                end = 8 + int.from_bytes(self._read[3:7], "big")
                if len(self._read) > 7 and len(self._read) >= end:
                    break
                data = await self.stream.receive_some()
                assert data, "the broker has closed"
                self._read += data
        whole, self._read = bytes(self._read[:end]), self._read[end:]
        return whole


BASE64 = "base64:"
NAMES = {"headers": "application_headers", "expiration_ms": "expiration", "timestamp_s": "timestamp"}
"""What py-amqp calls them, where it is not what the common model does."""
ROWS = (
    *("content_type", "content_encoding", "headers", "priority", "correlation_id", "reply_to"),
    *("expiration_ms", "message_id", "timestamp_s", "type", "user_id", "app_id"),
)


class Amqp:
    """A publisher and a consumer."""

    async def start(self, world: Any) -> None:
        self.publisher, self.consumer = [await world.amqp_client() for _ in range(2)]
        await self.consumer.queue("to.amqp", "x.#")
        await self.consumer.consume("to.amqp")

    async def say(self, said: Known) -> None:
        properties = {NAMES.get(row, row): said[row] for row in ROWS if said.get(row) is not None}
        if said["retain"]:
            properties["application_headers"] = {**(said["headers"] or {}), "x-retain": True}
        if isinstance(said["correlation_id"], bytes):
            properties["correlation_id"] = BASE64 + b64encode(said["correlation_id"]).decode()
        if said["expiration_ms"] is not None:
            properties["expiration"] = str(said["expiration_ms"])
        if said["delivery_mode"] is not None:
            properties["delivery_mode"] = said["delivery_mode"]
        await self.publisher.publish("amq.topic", said["routing_key"], said["body"], **properties)

    async def hear(self, _expected: Known) -> Known:
        deliver, properties, payload = await self.consumer.message()
        await self.consumer.ack(deliver)
        heard = {row: properties.get(NAMES.get(row, row)) for row in ROWS}
        identity = heard["correlation_id"]
        if identity is not None and identity.startswith(BASE64):
            data = b64decode(identity.removeprefix(BASE64))
            heard["correlation_id"] = data.decode() if is_utf8(data) else data
        if heard["expiration_ms"] is not None:
            heard["expiration_ms"] = int(heard["expiration_ms"])
        heard["headers"] = _aware(heard["headers"])
        return {**heard, "routing_key": deliver.routing_key, "persistent": properties.get("delivery_mode") == 2, "body": payload}


def _aware(value: Any) -> Any:
    """Return what py-amqp has read, with the time zone that it leaves out."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {name: _aware(inner) for name, inner in value.items()}
    return [_aware(inner) for inner in value] if isinstance(value, list) else value
