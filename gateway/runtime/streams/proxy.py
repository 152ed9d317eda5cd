"""For whom does a proxy speak? Reads the PROXY protocol's header, versions 1 and 2, from those who are trusted to send it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import ProtocolViolation

SPEC: Final = "PROXY protocol"
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1_BYTES: Final = 107
MAX_V2_BYTES: Final = 4_096
"""The addresses take at most 232 bytes; the rest is room for what proxies add."""

_V1: Final = b"PROXY"
_V2_HEAD: Final = 16
_V1_LINE: Final = re.compile(r"PROXY TCP([46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_LAST_PORT: Final = 65_535
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES: Final = {0: 0, 1: 12, 2: 36, 3: 216}
"""Bytes of the addresses by family: unspecified, IPv4, IPv6, Unix sockets."""
_STREAM, _LAST_PROTOCOL = 1, 2
_CRC32C: Final = 0x03


@dataclass(frozen=True, slots=True)
class Claim:
    """What a header says of the peer behind the proxy.

    Args:
        peer: for logs; empty: as that of the proxy's own connection.
        is_loopback: the peer is on the machine of the proxy; None: it says nothing of it (``LOCAL``: the proxy itself is the peer).
    """

    peer: str = ""
    is_loopback: bool | None = None


UNKNOWN: Final = Claim(is_loopback=False)
"""Somebody whom the proxy can't name: nothing is believed of it."""


class ProxyHeader:
    """A layer that reads the header, says what it claims, and is spent: what follows is the peer's own.

    Args:
        claimed: is told, before anything is handed up.
    """

    __slots__ = ("_buffer", "_claimed", "ended", "out", "spent")
    successor = None
    transport = ""
    certificate_subject = None

    def __init__(self, claimed: Callable[[Claim], None]) -> None:
        self._claimed = claimed
        self._buffer = b""
        self.out: list[bytes] = []
        self.ended = False
        self.spent = False

    @property
    def settled(self) -> bool:
        """The header has been read."""
        return self.spent

    def received(self, data: bytes) -> bytes:
        """Return what follows the header, when that is whole.

        Raises:
            ProtocolViolation: it is none.
        """
        self._buffer = data = self._buffer + data
        found = read_header(data)
        if found is None:
            return b""
        claim, size = found
        self._buffer = b""
        self.spent = True
        self._claimed(claim)
        return data[size:]

    def sending(self, data: bytes) -> bytes:
        """Return nothing: the peer is not known, and no protocol's server speaks first here."""
        return b"" if not self.spent else data

    def goodbye(self) -> bytes:
        """Return nothing: there is none."""
        return b""


def read_header(data: bytes) -> tuple[Claim, int] | None:
    """Return what the header claims and its size in bytes; None: more must come.

    Raises:
        ProtocolViolation: `data` can't be the beginning of one, or it is longer than is taken.
    """
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    raise _bad("a trusted proxy sends no header")


def _bad(reason: str) -> ProtocolViolation:
    return ProtocolViolation(reason, SPEC)


# -- version 1 ---------------------------------------------------------------


def _read_v1(data: bytes) -> tuple[Claim, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        if len(data) >= MAX_V1_BYTES or b"\n" in data:
            raise _bad(f"a line that does not end within {MAX_V1_BYTES} bytes")
        return None
    size = end + 2
    line = data[:end].decode("latin-1")
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):  # whatever stands behind it
        return UNKNOWN, size
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise _bad(f"no header: {line!r}")
    family, source, destination = match[1], match[2], match[3]
    port = int(match[4])
    if port > _LAST_PORT or int(match[5]) > _LAST_PORT:
        raise _bad("a port above 65535")
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        if family == "4":
            address = ipaddress.IPv4Address(source)
            ipaddress.IPv4Address(destination)
        else:
            address = ipaddress.IPv6Address(source)
            ipaddress.IPv6Address(destination)
    except ValueError as error:
        raise _bad(f"no address: {error}") from None
    return _claim(address, port), size


# -- version 2 ---------------------------------------------------------------


def _read_v2(data: bytes) -> tuple[Claim, int] | None:
    if len(data) < _V2_HEAD:
        return None
    command = data[12]
    family, protocol = divmod(data[13], 16)
    if command not in (_LOCAL, _PROXY):
        raise _bad(f"version and command 0x{command:02x}")
    size = _V2_HEAD + int.from_bytes(data[14:16], "big")
    if size > MAX_V2_BYTES:
        raise _bad(f"a header of {size} bytes: at most {MAX_V2_BYTES} are taken")
    if command == _PROXY and (family not in _FAMILIES or protocol > _LAST_PROTOCOL):
        raise _bad(f"family and protocol 0x{data[13]:02x}")
    if len(data) < size:
        return None
    header = data[:size]
    if command == _LOCAL:
        return Claim(), size
    extra = _V2_HEAD + _FAMILIES[family]
    if size < extra:
        raise _bad("its addresses are cut off")
    if family == 0 or protocol != _STREAM:
        return UNKNOWN, size
    _check_extras(header, extra)
    return _claim_v2(header, family), size


def _claim_v2(header: bytes, family: int) -> Claim:
    if family == 1:
        return _claim(ipaddress.IPv4Address(header[16:20]), int.from_bytes(header[24:26], "big"))
    if family == 2:  # noqa: PLR2004 - IPv6, as the table of families says
        return _claim(ipaddress.IPv6Address(header[16:32]), int.from_bytes(header[48:50], "big"))
    path = header[16:124].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return Claim(f"unix:{path}", is_loopback=True)


def _check_extras(header: bytes, at: int) -> None:
    """Walk what the proxy added: nothing of it is used, but a checksum that is there must be right."""
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise _bad("what follows the addresses is cut off")
        if header[at] == _CRC32C:
            if end - value != 4:  # noqa: PLR2004 - 32 bits
                raise _bad("a checksum that is none")
            if crc32c(header[:value] + bytes(4) + header[end:]) != int.from_bytes(header[value:end], "big"):
                raise _bad("its checksum is wrong")
        at = end


def _claim(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Claim:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return Claim(f"{address}:{port}", is_loopback=address.is_loopback)


_POLYNOMIAL = 0x82F63B78


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ _POLYNOMIAL if value & 1 else value >> 1  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of a header. Cost: a step of Python per byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
