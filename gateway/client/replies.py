"""What does a program hold while the gateway has not answered yet?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gateway.client.errors import ClientError, PublishRefused, Unroutable

_REASONS = {
    311: "it is larger than the gateway takes",
    403: "not allowed",
    404: "there is no such exchange",
    406: "it contradicts what exists",
    506: "a queue is full, too much is unconfirmed, or the journal can not take it",
    540: "not supported",
    541: "the gateway's own error",
}
"""What a CONFIRM's status says of a message (docs/tgp.md, codes): the protocol carries no other reason."""


class Reply:
    """The answer to one command: `done`, then `result` or `error`."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = False
        self.error: ClientError | None = None
        self.result: Any = None

    def resolve(self, result: Any = None, error: ClientError | None = None) -> None:
        """Answer it; the first answer counts."""
        if not self.done:
            self.result, self.error, self.done = result, error, True


@dataclass(frozen=True, slots=True)
class Returned:
    """A mandatory message that reached no queue, as it came back."""

    code: int
    exchange: str
    routing_key: str
    body: bytes


class Waiter(Protocol):
    """Who can wait for a reply (`gateway.client.Client`)."""

    def wait_for(self, reply: Reply, timeout: float | None = None) -> Any:
        """Return the result, or raise the error."""


class Confirm(Reply):
    """The gateway's word on one published message. Not thread-safe, as the client is not.

    ``seq`` is the publish's sequence number; ``returned`` is set when a mandatory message came back.
    """

    __slots__ = ("_waiter", "body", "command", "returned", "seq")

    def __init__(self, waiter: Waiter, seq: int, command: tuple[Any, ...], body: bytes) -> None:
        super().__init__()
        self.seq = seq
        self.command = command
        self.body = body
        self.returned: Returned | None = None
        self._waiter = waiter

    def settle(self, status: int) -> None:
        """Take the status of a CONFIRM: 0 is stored."""
        if self.returned is not None:
            self.resolve(error=Unroutable(self.returned.code, f"no queue for {self.returned.routing_key!r}"))
        elif status:
            reason = _REASONS.get(status, f"status {status}")
            self.resolve(error=PublishRefused(status, f"the gateway did not store message {self.seq}: {reason}"))
        else:
            self.resolve(self.seq)
        self.body, self.command = b"", ()

    def __repr__(self) -> str:
        state = str(self.error) if self.error else "confirmed" if self.done else "undecided"
        return f"<Confirm of message {self.seq}: {state}>"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the message is on disk in every durable queue that it reached.

        Args:
            timeout: seconds; None: the client's.
        Raises:
            PublishRefused: it was not stored. Unroutable: it was mandatory and reached no queue.
            TimedOut: no word yet; it may be stored, and will be sent again if need be.
        """
        self._waiter.wait_for(self, timeout)
