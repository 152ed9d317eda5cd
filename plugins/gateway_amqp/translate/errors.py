"""Which reply code and text does a refusal have, and does it close the channel or the connection?"""

from __future__ import annotations

from typing import Final

from gateway.api import CommandInvalid, GatewayError, MessageRefused, NotHeld, NotSupported
from gateway_amqp.codec.names import PRECONDITION_FAILED, HardError, SoftError

_HARD: Final = (CommandInvalid, NotSupported)
"""AMQP 0-9-1 §1.2: these end the connection. The codes of the common model are the standard's."""


def replied(error: SoftError | HardError | GatewayError, channel: int) -> SoftError | HardError:
    """Return what a client is told on a channel.

    As in RabbitMQ it is a 406 if a message is too large, or a queue does not take it, and if a delivery was not settled in time.
    """
    if isinstance(error, NotHeld):
        return SoftError(PRECONDITION_FAILED, f"delivery acknowledgement on channel {channel} timed out")
    if isinstance(error, MessageRefused):
        return SoftError(PRECONDITION_FAILED, error.text)
    if isinstance(error, GatewayError):
        return (HardError if isinstance(error, _HARD) else SoftError)(error.code, error.text)
    return error
