"""Which reply code and text does a refusal have, and does it close the channel or the connection?"""

from __future__ import annotations

from typing import Final

from gateway.api import CommandInvalid, GatewayError, NotAllowed, NotSupported
from gateway_amqp.codec.names import HardError, SoftError

_HARD: Final = (CommandInvalid, NotAllowed, NotSupported)
"""AMQP 0-9-1 §1.2.5: these end the connection. The codes of the common model are the standard's."""


def replied(error: SoftError | HardError | GatewayError) -> SoftError | HardError:
    """Return what a client is told."""
    if isinstance(error, GatewayError):
        return (HardError if isinstance(error, _HARD) else SoftError)(error.code, error.text)
    return error
