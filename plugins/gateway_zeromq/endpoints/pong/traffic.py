"""What is one peer sent of what it was given, and how far has it ponged?

Nothing here waits: what is to be sent is sent at the end of a turn, in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway_zeromq.endpoints.feed import Item
from gateway_zeromq.endpoints.pong.outbox import SEND_BYTES, Outbox
from gateway_zeromq.endpoints.pong.terms import Rules
from gateway_zeromq.endpoints.pong.window import Window
from gateway_zeromq.endpoints.pong.wires import Writer, size_of

_LARGE_BYTES: Final = 4_096
"""Of the bytes of messages that are smaller than this on average no account is kept."""


class Traffic:
    """One peer's messages, from when they are given to it until they are settled or given back.

    ``window``: what is sent and not ponged. ``pings``: the peer can pong; else what the kernel takes is settled.

    Args:
        out: where they go.
        rules: how many there may be.
        write: makes bytes of them.
        handed: told what the kernel took for a peer that can't pong.
    """

    __slots__ = ("_handed", "_is_large", "_is_open", "_out", "_progress", "_rules", "_todo", "_write", "pings", "window")

    def __init__(self, out: Outbox, rules: Rules, write: Writer, handed: Callable[[list[Item]], None]) -> None:
        self._out = out
        self._rules = rules
        self._write = write
        self._handed = handed
        self._todo: list[Item] = []
        self._is_large = self._is_open = self._progress = False
        self.pings = False
        self.window = self._new_window()

    def _new_window(self) -> Window:
        return Window(self._rules.interval, self._rules.behind)

    # -- from when until when

    def begin(self, *, pings: bool) -> None:
        """Let it be given messages. `pings`: it can pong; nothing that was asked before is still to be answered, otherwise."""
        self._is_open = True
        self.pings = pings
        if not pings:
            self.window = self._new_window()

    def hold(self) -> None:
        """Let it be given nothing until it `begin`s again; nothing is under way."""
        self._is_open = False

    def end(self) -> list[Item]:
        """Send no more; return what is not settled."""
        self._is_open = False
        self._out.forget()
        return self.window.hand_over() + self.take_back()

    # -- giving (`shares.Taker`)

    @property
    def room(self) -> int:
        """How many messages it may be given now."""
        if self._out.blocked or not self._is_open:
            return 0
        if self._is_large and size_of(self.window.items) + size_of(self._todo) >= self._rules.window_bytes:
            return 0
        return self._rules.window - len(self.window.items) - len(self._todo)

    def give(self, items: list[Item]) -> None:
        """Give it messages, not more than it has room for; `work` sends them."""
        self._todo = self._todo + items if self._todo else items

    def take_back(self) -> list[Item]:
        """Return what was given to it and has not been sent."""
        todo, self._todo = self._todo, []
        return todo

    # -- sending

    def work(self) -> None:
        """Send what it was given, as far as the kernel takes it: in one send, unless it is much."""
        while self._todo and not self._out.blocked:
            self._out.send(*self._written())
            if not self._out.blocked:
                self._hand_over()

    def go_on(self) -> None:
        """All that had to wait is sent."""
        self._hand_over()
        self.work()

    def _hand_over(self) -> None:
        if self._is_open and not self.pings:
            self._handed(self.window.hand_over())

    def _written(self) -> tuple[list[bytes], int]:
        """Return bytes for some of what it was given, in parts, with the PINGs that are due; and how many bytes."""
        todo, window, write = self._todo, self.window, self._write
        self._progress = self._progress or not window.pings  # from now on it is asked
        parts: list[bytes] = []
        at, end = 0, len(todo)
        size = 0
        while at < end and size < SEND_BYTES:
            seen = len(parts)
            some = todo[at : at + window.until_ping()]
            write(some, parts)
            at += len(some)
            window.add(some)
            if self.pings:
                parts.append(window.due(last=at == end))
            size += sum(map(len, parts[seen:]))
        self._todo = todo[at:]
        self._is_large = size > at * _LARGE_BYTES
        return parts, size

    # -- hearing

    def pong(self, context: bytes) -> list[Item]:
        """Take a PONG; return what is settled by it. Raises: Violation: nobody asked for it."""
        done = self.window.pong(context)
        self._progress = True
        return done

    # -- how it goes

    @property
    def blocked(self) -> bool:
        """The kernel takes no more."""
        return self._out.blocked

    @property
    def waits(self) -> bool:
        """A PONG is still to come, or something to be sent."""
        return bool(self._todo or self._out.blocked or self.window.unponged)

    def take_progress(self) -> bool:
        """Return whether anything has moved since this was called before, or the peer was asked for the first time."""
        moved = self._progress or self._out.moved
        self._progress = self._out.moved = False
        return moved
