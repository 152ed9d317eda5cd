"""How does a task wait for the outcome of a number?"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from gateway.api.channel import Outcome
from gateway.errors import GatewayError

_WINDOW_BYTES = 4_096


class Answers:
    """The sink of a channel that was opened without one: keeps outcomes until a task asks, each once."""

    __slots__ = ("_closed", "_parked", "_results", "_through", "_told")

    def __init__(self) -> None:
        self._through = 0
        self._results: dict[int, Outcome] = {}
        self._parked: dict[int, trio.Event] = {}
        self._told = _Told()
        self._closed = False

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`."""
        self._through = through
        for outcome in exceptions:
            self._results[outcome.number] = outcome
        for number in [number for number in self._parked if number <= through]:
            self._wake(number)

    def _wake(self, number: int) -> None:
        # At the end of a turn: a task that is woken directly would sleep on until something else happens.
        trio.lowlevel.current_trio_token().run_sync_soon(self._parked.pop(number).set)

    async def outcome(self, number: int) -> Outcome:
        """See `gateway.api.Channel.outcome`."""
        if number > self._through and not self._closed:
            await self._parked.setdefault(number, trio.Event()).wait()
        else:
            await trio.lowlevel.checkpoint()
        if number > self._through:
            raise GatewayError("the channel was closed before this was decided")
        self._told.mark(number)
        outcome = self._results.pop(number, None) or Outcome(number)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def close(self) -> None:
        """Let nobody wait any longer."""
        self._closed = True
        for number in list(self._parked):
            self._wake(number)


class _Told:
    """Which numbers were told: a bit each, but none for those up to which all were told."""

    __slots__ = ("_base", "_bits")

    def __init__(self) -> None:
        self._base = 0
        self._bits = bytearray(b"\1")  # there is no number 0

    def mark(self, number: int) -> None:
        """Note a number. Raises RuntimeError if it was noted before."""
        at, bit = divmod(number - self._base, 8)
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        if at < 0 or self._bits[at] >> bit & 1:
            raise RuntimeError(f"the outcome of number {number} was told already")
        self._bits[at] |= 1 << bit
        if len(self._bits) > _WINDOW_BYTES:
            full = len(self._bits) - len(self._bits.lstrip(b"\xff"))
            del self._bits[:full]
            self._base += 8 * full


class _Deaf:
    """In place of a sink that failed: had it not heard of a refusal, a later call would be a false confirm."""

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        pass


DEAF = _Deaf()
