"""After how many milliseconds does a message expire, as its publisher wrote it?"""

from __future__ import annotations

import re
from typing import Final

from gateway_amqp.codec.names import BASIC_PUBLISH, PRECONDITION_FAILED, SoftError

MOST_MS: Final = 315_360_000_000
"""Ten years, as in RabbitMQ."""
_NUMBER: Final = re.compile(rb"[+-]?[0-9]+")


def milliseconds(written: bytes) -> int:
    """Return what the property says.

    Raises:
        SoftError: 406, it is no number, or one that can't be.
    """
    found = _NUMBER.match(written)
    if found is None:
        raise _invalid(written, "no_integer")
    if found.end() < len(written):
        rest = written[found.end() :].decode("utf-8", "replace").replace("\\", "\\\\").replace('"', '\\"')
        raise _invalid(written, f'{{leftover_string,"{rest}"}}')
    number = int(found[0])
    if number < 0:
        raise _invalid(written, f"{{value_negative,{number}}}")
    if number > MOST_MS:
        raise _invalid(written, f"{{value_too_large,{number}}}")
    return number


def _invalid(written: bytes, why: str) -> SoftError:
    text = written.decode("utf-8", "replace")
    return SoftError(PRECONDITION_FAILED, f"invalid expiration '{text}': {why}", BASIC_PUBLISH)
