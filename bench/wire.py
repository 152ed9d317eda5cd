"""As much of MQTT 3.1.1 as a raw socket needs."""

from __future__ import annotations

import socket
import struct


def field(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return bytes([first]) + length + body


def connected(port: int, client: bytes, *, clean: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(packet(0x10, field(b"MQTT") + bytes([4, 2 if clean else 0, 0, 0]) + field(client)))
    answer = sock.recv(4)
    assert answer[:1] == b"\x20", answer
    assert answer[3:] == b"\0", answer
    return sock
