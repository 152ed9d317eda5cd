"""Which reply code and text does a refusal have, and does it close the channel or the connection?"""

from __future__ import annotations

from gateway.api import GatewayError, NotSupported
from gateway_amqp.codec.names import HardError, SoftError


def replied(error: SoftError | GatewayError) -> SoftError | HardError:
    """Return what a client is told. The codes of the common model are those of AMQP 0-9-1 §1.2.5."""
    if isinstance(error, SoftError):
        return error
    if isinstance(error, NotSupported):
        return HardError(error.code, error.text)
    return SoftError(error.code, error.text)
