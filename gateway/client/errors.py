"""What can go wrong for a program that speaks to a gateway?"""

from __future__ import annotations


class ClientError(Exception):
    """A no from the gateway, or from the way to it.

    Args:
        code: AMQP 0-9-1's reply code (§1.2.5) where the gateway gave one.
        text: one line.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class RequestRefused(ClientError):
    """A declaration, a consume or a get was answered with ERROR; the state of the gateway is as it was."""


class PublishRefused(ClientError):
    """A message was not stored: no queue has it."""


class Unroutable(PublishRefused):
    """A mandatory message reached no queue and came back; see `Confirm.returned`."""


class ConsumerCancelled(ClientError):
    """The gateway ended a consumer: its queue was deleted, or it could not be set up again after a reconnect."""


class Disconnected(ClientError):
    """The gateway said goodbye for good (refused login, broken protocol), or the client is closed."""


class TimedOut(ClientError, TimeoutError):
    """No answer in time. The command is still under way: its effect is unknown until a later answer tells."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text)
