"""What does a program hold while the gateway has not answered yet?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.client.errors import ClientError, PublishRefused, Unroutable

_REASONS = {
    311: "it is larger than the gateway takes",
    403: "not allowed",
    404: "there is no such exchange",
    406: "it contradicts what exists, or names another user in its user_id",
    503: "its routing key has more words than are allowed",
    506: "a queue is full, too much is unconfirmed, or the journal can not take it",
    540: "not supported",
    541: "the gateway's own error",
}
"""What a CONFIRM's status says of a message (docs/tgp.md, codes): the protocol carries no other reason."""


class Reply:
    """The answer to one command: `done`, then `result` or `error`."""

    __slots__ = ("_watchers", "done", "error", "result")

    def __init__(self) -> None:
        self.done = False
        self.error: ClientError | None = None
        self.result: Any = None
        self._watchers: list[Callable[[], None]] | None = None

    def resolve(self, result: Any = None, error: ClientError | None = None) -> None:
        """Answer it; the first answer counts."""
        if self.done:
            return
        self.result, self.error, self.done = result, error, True
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have something called once when it is answered: now, if it is answered already."""
        if self.done:
            watcher()
        else:
            self._watchers = [*(self._watchers or ()), watcher]

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Undo `watch`."""
        if self._watchers:
            self._watchers = [other for other in self._watchers if other != watcher]


@dataclass(frozen=True, slots=True)
class Returned:
    """A mandatory message that reached no queue, as it came back."""

    code: int
    exchange: str
    routing_key: str
    body: bytes


class Publishing(Reply):
    """The gateway's word on one published message, however it is waited for.

    ``seq`` is the publish's sequence number; ``returned`` is set when a mandatory message came back; ``scheduled_id`` is the
    number by which a scheduled one can be taken back, where the gateway said it.
    """

    __slots__ = ("body", "command", "returned", "scheduled_id", "seq")

    def __init__(self, seq: int, command: tuple[Any, ...], body: bytes) -> None:
        super().__init__()
        self.seq = seq
        self.command = command
        self.body = body
        self.returned: Returned | None = None
        self.scheduled_id: int | None = None

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


class Waiter(Protocol):
    """Who can wait for a reply (`gateway.client.Client`)."""

    def wait_for(self, reply: Reply, timeout: float | None = None) -> Any:
        """Return the result, or raise the error."""


class Confirm(Publishing):
    """The gateway's word on one published message. Not thread-safe, as the client is not."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: Waiter, seq: int, command: tuple[Any, ...], body: bytes) -> None:
        super().__init__(seq, command, body)
        self._waiter = waiter

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the message is on disk in every durable queue that it reached.

        Args:
            timeout: seconds; None: the client's.
        Raises:
            PublishRefused: it was not stored. Unroutable: it was mandatory and reached no queue.
            TimedOut: no word yet; it may be stored, and will be sent again if need be.
        """
        self._waiter.wait_for(self, timeout)
