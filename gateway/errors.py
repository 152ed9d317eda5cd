"""What can go wrong, and which reply code a peer is told?

The codes are AMQP 0-9-1's reply codes (AMQP 0-9-1 §1.2.5), the common ones of the gateway.
"""

from __future__ import annotations


class GatewayError(Exception):
    """An answer that is a no. The state of the broker is as it was before the call."""

    code = 541

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NotFound(GatewayError):
    """The named exchange, queue, consumer or delivery does not exist."""

    code = 404


class NotHeld(NotFound):
    """The delivery is not held: it is settled already, or its lease has ended, and others have it, or will."""

    def __init__(self, text: str = "unknown delivery tag") -> None:
        super().__init__(text)


class PreconditionFailed(GatewayError):
    """What is asked for contradicts what exists (another type, other arguments, not empty, in use)."""

    code = 406


class AccessRefused(GatewayError):
    """The principal may not do this."""

    code = 403


class ResourceLocked(GatewayError):
    """Another connection has exclusive use of it."""

    code = 405


class NotSupported(GatewayError):
    """A capability that this engine lacks; never ignored in silence."""

    code = 540


class CommandInvalid(GatewayError):
    """There is no such thing to ask for: an exchange type that nobody has."""

    code = 503


class MessageRefused(GatewayError):
    """A queue that the message is routed to is full and refuses; no queue has taken it."""

    code = 506


class MessageTooLarge(MessageRefused):
    """The message is larger than ``limits.max_message_bytes`` allows."""


class Overloaded(GatewayError):
    """The journal can not take durable messages now (a full or failing disk, a limit reached)."""

    code = 506


class ConfigError(GatewayError):
    """A setting is wrong; the text names file, key and what is allowed."""

    code = 530


class ListenError(GatewayError):
    """An address can't be bound; the text names port, setting, and how to switch that front-end off."""

    code = 541


class PluginLoadError(GatewayError):
    """A plugin can't be loaded; the text names its distribution."""

    code = 541


class JournalError(GatewayError):
    """The journal can't be opened, read or written."""

    code = 541


class JournalLocked(JournalError):
    """Another broker has the data directory; the text names its process."""


class JournalUnwritable(JournalError):
    """The data directory can't be written."""


class ProtocolViolation(Exception):
    """A peer broke its protocol: it gets the protocol's goodbye and that one connection closes.

    Args:
        reason: one line for the log and, where the protocol carries text, for the peer.
        spec: the normative section that was broken, for instance ``MQTT 3.1.1 §3.8.1 [MQTT-3.8.1-1]``.
    """

    def __init__(self, reason: str, spec: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.spec = spec
