"""PROXY headers: versions 1 and 2, as the specification has them, and nothing else."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProtocolViolation
from gateway.runtime.streams.proxy import MAX_V2_BYTES, SIGNATURE, UNKNOWN, Claim, ProxyHeader, crc32c, read_header

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 1883\r\n"
FAR = Claim("192.0.2.1:56324", is_loopback=False)


def v2(command=0x21, family=0x11, body=None, *, size=None):
    body = ipv4() if body is None else body
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def ipv4(source="192.0.2.1", port=56_324):
    return ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address("198.51.100.2").packed + struct.pack("!HH", port, 1883)


def ipv6(source, port=56_324):
    return ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("2001:db8::2").packed + struct.pack("!HH", port, 1883)


def unix(source):
    return source.ljust(108, b"\0") + b"/run/x".ljust(108, b"\0")


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(more=b""):
    """A header whose checksum is right."""
    blank = v2(body=ipv4() + more + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


@pytest.mark.parametrize(
    ("header", "claim"),
    [
        (V1, FAR),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 0 65535\r\n", Claim("127.0.0.1:0", is_loopback=True)),
        (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", Claim("2001:db8::1:1", is_loopback=False)),
        (b"PROXY TCP6 ::1 ::1 1 2\r\n", Claim("::1:1", is_loopback=True)),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Claim("192.0.2.1:1", is_loopback=False)),
        (b"PROXY TCP6 ::ffff:127.0.0.1 ::1 1 2\r\n", Claim("127.0.0.1:1", is_loopback=True)),
        (b"PROXY UNKNOWN\r\n", UNKNOWN),
        (b"PROXY UNKNOWN ffff:f::ffff \xff\xff anything 65535\r\n", UNKNOWN),
        (v2(), FAR),
        (v2(family=0x21, body=ipv6("2001:db8::1")), Claim("2001:db8::1:56324", is_loopback=False)),
        (v2(family=0x21, body=ipv6("::1")), Claim("::1:56324", is_loopback=True)),
        (v2(family=0x31, body=unix(b"/run/client")), Claim("unix:/run/client", is_loopback=True)),
        (v2(body=ipv4() + tlv(0x01, b"mqtt") + tlv(0x04, b"") + tlv(0xE0, b"x" * 300)), FAR),
        (v2(0x20, 0x00, b""), Claim()),
        (v2(0x20, 0xFF, b"ignored"), Claim()),
        (v2(0x21, 0x00, b""), UNKNOWN),
        (v2(0x21, 0x00, b"whatever"), UNKNOWN),
        (v2(0x21, 0x10, ipv4()), UNKNOWN),
        (v2(0x21, 0x12, ipv4()), UNKNOWN),
        (with_checksum(), FAR),
        (with_checksum(tlv(0x02, b"example.org")), FAR),
    ],
)
def test_a_header_is_read_cut_at_every_byte_and_what_follows_is_left(header, claim):
    assert read_header(header + b"rest") == (claim, len(header))
    for at in range(len(header)):
        assert read_header(header[:at]) is None
        claims = []
        layer = ProxyHeader(claims.append)
        assert layer.received(header[:at]) + layer.received(header[at:] + b"rest") == b"rest"
        assert layer.spent
        assert claims == [claim]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x10",
        b"proxy TCP4",
        b"PROXYTCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 70000\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
        b"PROXY UNKNOWN " + b"x" * 100,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        SIGNATURE[:11] + b"x",
        v2(command=0x11),
        v2(command=0x22),
        v2(command=0x31),
        v2(family=0x41),
        v2(family=0x13),
        v2(body=ipv4()[:-1]),
        v2(family=0x21),
        v2(size=MAX_V2_BYTES, body=b""),
        v2(size=65_535, body=b""),
        v2(body=ipv4() + b"\x01"),
        v2(body=ipv4() + b"\x01\x00\x05mqtt"),
        v2(body=ipv4() + tlv(0x03, b"1234")),
        v2(body=ipv4() + tlv(0x03, b"123")),
    ],
)
def test_what_is_no_header_is_refused(data):
    with pytest.raises(ProtocolViolation) as refused:
        ProxyHeader(lambda _: None).received(data)
    assert refused.value.spec == "PROXY protocol"


def test_the_longest_line_is_taken_and_one_byte_more_is_not():
    line = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(line) == 107
    assert read_header(line) == (UNKNOWN, 107)


def test_a_trusted_proxy_is_told_nothing_before_its_header():
    layer = ProxyHeader(lambda _: None)
    assert layer.sending(b"hello") == layer.goodbye() == b""


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283


@given(
    st.binary(max_size=120)
    | st.binary(max_size=120).map(b"PROXY ".__add__)
    | st.binary(max_size=120).map(lambda tail: tail.join([b"PROXY TCP4 ", b"\r\n"]))
    | st.builds(v2, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=260))
    | st.binary(max_size=60).map(lambda tail: v2(body=ipv4() + tail))
)
def test_any_bytes_are_a_header_part_of_one_or_refused_however_they_are_cut(data):
    def outcome(parts):
        claims = []
        layer = ProxyHeader(claims.append)
        rest = b""
        try:
            for part in parts:
                if layer.spent:
                    rest += part
                else:
                    rest += layer.received(part)
        except ProtocolViolation:
            return None
        return claims, rest

    assert outcome([data]) == outcome(bytes([byte]) for byte in data)
