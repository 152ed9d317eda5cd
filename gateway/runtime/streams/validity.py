"""From when until when is a certificate valid?"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_LAST_OF_2000 = 50
"""Years of two digits up to 49 are of this century (RFC 5280 §4.1.2.5.1)."""


def validity(path: Path) -> tuple[datetime, datetime] | None:
    """Return begin and end of the first certificate of a PEM file; None: they can't be read.

    Spec: RFC 5280 §4.1
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
        begin = text.index(_BEGIN)
        pem = text[begin : text.index(_END, begin) + len(_END)]
        return _period(ssl.PEM_cert_to_DER_cert(pem))
    except (OSError, ValueError, IndexError):
        return None


def _period(der: bytes) -> tuple[datetime, datetime]:
    _, certificate, _ = _item(der)
    _, fields, _ = _item(certificate)
    tag, _, rest = _item(fields)
    if tag == _VERSION:
        _, _, rest = _item(rest)  # the serial number
    _, _, rest = _item(rest)  # the signature's algorithm
    _, _, rest = _item(rest)  # the issuer
    tag, period, _ = _item(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    tag, begin, rest = _item(period)
    last_tag, end, _ = _item(rest)
    return _time(tag, begin), _time(last_tag, end)


def _item(der: bytes) -> tuple[int, bytes, bytes]:
    """Return tag and content of the first item, and what follows it."""
    tag, size, at = der[0], der[1], 2
    if size & 0x80:
        width = size & 0x7F
        size = int.from_bytes(der[at : at + width], "big")
        at += width
    return tag, der[at : at + size], der[at + size :]


def _time(tag: int, text: bytes) -> datetime:
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("20" if int(digits[:2]) < _LAST_OF_2000 else "19") + digits
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
