"""In which order is a client answered, if what it asks for takes its time?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.api import GatewayError, Outcome
from gateway_amqp.codec.names import SoftError
from gateway_amqp.translate.errors import replied

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel

Then = Callable[[Outcome], None]


class Expected:
    """What is to happen, or to be sent, when the outcome of a number is told; `always`: even if that is an error."""

    __slots__ = ("always", "data", "method", "number", "then")

    def __init__(self, number: int, then: Then | None, method: int, data: bytes, *, always: bool = False) -> None:
        self.always: bool = always
        self.number: int = number
        self.then: Then | None = then
        self.method: int = method
        self.data: bytes = data


class Answers:
    """What a channel's methods are answered, in their order, when it is on disk what they say (an `OutcomeSink`).

    ``is_waiting``: there is a method that is not answered yet.
    """

    __slots__ = ("_amqp", "_expected", "_last")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        self._expected: list[Expected] = []
        self._last: int = 0

    @property
    def is_waiting(self) -> bool:
        """There is a method that is not answered yet."""
        return len(self._expected) > 0

    def expect(self, number: int, then: Then, method: int) -> None:
        """Have `then` called with the outcome of a number, unless that is an error: then the channel fails."""
        self._last = number
        self._expected.append(Expected(number, then, method, b""))

    def expect_always(self, number: int, then: Then) -> None:
        """Have `then` called with the outcome of a number, whatever it is."""
        self._last = number
        self._expected.append(Expected(number, then, 0, b"", always=True))

    def send(self, data: bytes) -> None:
        """Send something behind the answers that are still to come."""
        if self._expected:
            self._expected.append(Expected(self._last, None, 0, data))
        else:
            self._amqp.link.send(data)

    def in_turn(self, then: Callable[[], None]) -> None:
        """Do something when all is answered that was said before."""
        if self._expected:
            self._expected.append(Expected(self._last, lambda _: then(), 0, b"", always=True))
        else:
            then()

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`."""
        expected = self._expected
        if not expected:
            return
        due = 0
        while due < len(expected) and expected[due].number <= through:
            due += 1
        self._expected = expected[due:]
        found = {outcome.number: outcome for outcome in exceptions}
        for item in expected[:due]:
            if self._amqp.is_over:
                return
            self._tell(item, found)

    def _tell(self, item: Expected, found: dict[int, Outcome]) -> None:
        then = item.then
        if then is None:
            self._amqp.link.send(item.data)
            return
        outcome = found.get(item.number) or Outcome(item.number)
        error: SoftError | GatewayError | None = None if item.always else outcome.error
        try:
            if error is None:
                then(outcome)
        except SoftError as soft:
            error = soft
        except GatewayError as refusal:
            error = refusal
        if error is not None:
            self._amqp.fail_now(replied(error, self._amqp.number), item.method)
