"""What stands between a socket and a receiver sees all of it."""

from __future__ import annotations

from gateway.api.stream import CloseReason
from gateway.errors import ProtocolViolation
from tests.runtime.receivers import exactly


async def test_layers_translate_both_ways_and_say_goodbye_last(start):
    server = await start()
    stream, echo = await server.connect()
    layer = Shouting()
    echo.connection.layer = layer
    await stream.send_all(b"hello")
    assert await exactly(stream, 11) == b"[hear]HELLO"
    assert echo.got == [b"hello"[::-1]]
    assert (echo.connection.transport, echo.connection.certificate_subject) == ("ws", "a device")
    await stream.send_all(b"tiuq")
    assert await exactly(stream, 15) == b"[hear]EYB[over]"
    assert echo.reasons == [CloseReason.LOCAL]


async def test_a_layer_may_end_a_connection_and_be_violated(start):
    server = await start()
    stream, echo = await server.connect()
    echo.connection.layer = Shouting()
    await stream.send_all(b"end")
    assert await exactly(stream, 15) == b"[hear]END[over]"
    assert echo.reasons == [CloseReason.EOF]
    stream, echo = await server.connect()
    echo.connection.layer = Shouting()
    await stream.send_all(b"rude")
    assert await exactly(stream, 10) == b"[no][over]"
    assert echo.reasons == [CloseReason.VIOLATION]


class Shouting:
    """A layer: what goes up is turned round, what goes down is in capitals."""

    transport = "ws"
    certificate_subject = "a device"

    def __init__(self):
        self.out = []
        self.ended = False

    def received(self, data):
        if data == b"rude":
            self.out.append(b"[no]")
            raise ProtocolViolation("rude", "SPEC 2")
        self.ended = data == b"end"
        self.out.append(b"[hear]")
        return data[::-1]

    def sending(self, data):
        return data[::-1].upper()

    def goodbye(self):
        return b"[over]"
