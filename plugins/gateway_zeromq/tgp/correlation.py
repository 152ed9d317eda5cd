"""How does JSON say a correlation id, which is text or bytes?"""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Final

BASE64: Final = "base64:"
"""How it begins if it is bytes, and no text in UTF-8."""


def in_json(correlation_id: str | bytes | None) -> str | None:
    """Return it as JSON has it; `from_json` reads it."""
    if correlation_id is None:
        return None
    data = correlation_id if isinstance(correlation_id, bytes) else correlation_id.encode()
    with suppress(UnicodeDecodeError):
        text = data.decode()
        if from_json(text) == text:
            return text
    return BASE64 + b64encode(data).decode()


def from_json(said: object) -> object:
    """Return what JSON says; what is no such text is as it is."""
    if isinstance(said, str) and said.startswith(BASE64):
        with suppress(ValueError):  # somebody's own text
            return b64decode(said.removeprefix(BASE64), validate=True)
    return said
