"""What is a client told of its publishes, and when?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.api import GatewayError, Message, MessageRefused, MessageTooLarge, Outcome, Overloaded
from gateway_amqp.codec.names import BASIC_PUBLISH
from gateway_amqp.confirms import Confirms, return_of

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel


class Telling:
    """The half of a channel's publishing that tells (an `OutcomeSink`).

    ``_last``: the number of the last publish; ``_through``: that of the last that was told. ``_kept``: mandatory messages of which
    it is not known yet whether anybody wants them. ``_selected``: answers that are told behind the publishes up to ``_selected_at``
    (0: there are none).
    """

    __slots__ = ("_afterwards", "_amqp", "_confirms", "_kept", "_last", "_selected", "_selected_at", "_through")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        self._confirms: Confirms | None = None
        self._afterwards: Callable[[], None] | None = None
        self._kept: dict[int, Message] = {}
        self._last: int = 0
        self._through: int = 0
        self._selected: bytes = b""
        self._selected_at: int = 0

    @property
    def is_waiting(self) -> bool:
        """Something was published of which the outcome is not known."""
        return self._through < self._last

    def afterwards(self, then: Callable[[Outcome], None], outcome: Outcome) -> None:
        """Have something done as soon as no publish is waiting: those of one commit may be told after what else is of it."""
        if self.is_waiting:
            self._afterwards = partial(then, outcome)
        else:
            then(outcome)

    def _ends(self, error: GatewayError, number: int) -> bool:
        """Say whether a refusal is the end of the channel, or the publisher learns of the message alone.

        Without confirms it is not told that a queue is full, as with RabbitMQ; but it may not believe that the journal has all.
        """
        if isinstance(error, MessageRefused):
            return isinstance(error, MessageTooLarge)
        confirms = self._confirms
        return confirms is None or not confirms.covers(number) or not isinstance(error, Overloaded)

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: what went nowhere comes back, then confirms, then the end if there is one."""
        self._through = through
        amqp = self._amqp
        if amqp.is_over:
            return
        if 0 < self._selected_at <= through:
            exceptions = self._tell_selected(exceptions)
        if exceptions:
            self._tell(through, exceptions)
        elif self._confirms is not None:
            self._send(self._confirms.all_stored(through))
        if self._kept:
            self._forget_kept(through)
        if self._afterwards is not None and through >= self._last:
            self._afterwards()
            self._afterwards = None

    def _tell_selected(self, exceptions: Sequence[Outcome]) -> Sequence[Outcome]:
        """Answer a Select; return what is to be told behind it."""
        at, answers = self._selected_at, self._selected
        self._selected_at, self._selected = 0, b""
        self._tell(at, [outcome for outcome in exceptions if outcome.number < at])
        if self._amqp.is_over:
            return ()
        self._send(answers)
        return [outcome for outcome in exceptions if outcome.number > at]

    def _tell(self, through: int, exceptions: Sequence[Outcome]) -> None:
        confirms = self._confirms
        parts: list[bytes] = []
        refused: list[int] = []
        end: GatewayError | None = None
        for outcome in exceptions:
            error = outcome.error
            if error is None:
                self._give_back(outcome, parts)
            elif self._ends(error, outcome.number):
                end = error
                through = outcome.number - 1
                break
            else:
                refused.append(outcome.number)
        if confirms is not None:
            parts.append(confirms.told(through, refused))
        self._send(b"".join(parts))
        if end is not None:
            self._amqp.fail(end, BASIC_PUBLISH)

    def _give_back(self, outcome: Outcome, parts: list[bytes]) -> None:
        message = self._kept.get(outcome.number)
        if message is not None and outcome.unroutable:
            parts.append(return_of(message, self._amqp.number, self._amqp.frame_max))

    def _send(self, data: bytes) -> None:
        if data:
            self._amqp.send(data)

    def _forget_kept(self, through: int) -> None:
        """Let go of mandatory messages that are decided."""
        if through >= self._last:
            self._kept.clear()
            return
        for number in list(self._kept):
            if number > through:
                break
            del self._kept[number]
