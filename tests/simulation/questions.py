"""What was asked by way of a queue, who has it, who has answered it, and who was told?"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from tests.simulation.ledger import Ledger, State

RE, PART = "re ", "part "
"""How answers begin, and parts of which more follows; what was asked follows."""


class Holder(Protocol):
    """Who works on what was asked."""

    name: str

    def still_has(self, text: str) -> bool:
        """Say whether nobody else may be handed it."""


class Book:
    """What was asked by way of one queue, over all lives of a broker.

    ``moved``: what is asked with an address for the answer, which takes its place in one commit. ``answers``: how often a worker
    has answered something. ``got``: answers in their queue that were acknowledged. ``found``: what was there when a broker began.
    """

    def __init__(self, ledger: Ledger, queue: str) -> None:
        self.ledger = ledger
        self.queue = queue
        self.moved: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.got: set[str] = set()
        self.found: set[str] = set()
        self.begin_life()

    def begin_life(self) -> None:
        self._holders: dict[str, Holder] = {}
        self._unflagged: Counter[str] = Counter()

    # -- workers

    def handed(self, text: str, to: Holder) -> None:
        """A worker is sent what was asked."""
        ledger = self.ledger
        ledger.counts[f"handed from {self.queue}"] += 1
        ledger.log(f"{self.queue}: {to.name} is asked {text}")
        sent = ledger.sent.get(text)
        ledger.check(sent is not None, f"{self.queue} asks {text!r}, which nobody sent")
        assert sent is not None
        ledger.check(text not in ledger.never, f"{self.queue} asks {text}, which was refused at once")
        former = self._holders.get(text)
        once = sent.submissions == 1 and not sent.delayed
        ledger.check(
            former is None or not once or not former.still_has(text),
            f"{to.name} is asked {text} of {self.queue}, which {former and former.name} has",
        )
        self._holders[text] = to

    def answered(self, text: str) -> None:
        """The broker has taken a worker's answer, the last that there is."""
        self.ledger.counts[f"answered at {self.queue}"] += 1
        self.answers[text] += 1
        self.ledger.ack(self.queue, text)

    # -- answers that took the place of what was asked

    def came(self, text: str, *, redelivered: bool) -> None:
        """An answer was delivered."""
        self.ledger.check(text in self.moved, f"{text} is answered, which nobody asked so")
        self.ledger.check(self.answers[text], f"{text} is answered, but nobody did so")
        self._unflagged[text] += not redelivered
        self.ledger.check(self._unflagged[text] < 2, f"the answer to {text} came twice without the redelivered flag")

    def look(self, asked: list[str], answers: list[str]) -> None:
        """Compare what is on disk when a broker begins, or is left at the end."""
        self.found.update(asked)
        kept = Counter(text.removeprefix(RE) for text in answers if text.startswith(RE))
        for text, times in kept.items():
            if text in self.moved:
                self.ledger.check(text not in asked, f"{self.queue} still has {text}, which was answered")
                self.ledger.check(times == 1, f"{text} of {self.queue} has {times} answers")

    def close(self, asked: list[str], answers: list[str]) -> None:
        """Settle accounts, before the ledger is audited.

        What was asked with an address for the answer is gone if that answer is there, or was. All else that a broker found when it
        began is a promise, though nobody was told.
        """
        ledger = self.ledger
        self.look(asked, answers)
        ledger.postponed |= self.moved & self.answers.keys()  # what was answered while the disk was full waits for a while
        there = {text.removeprefix(RE) for text in answers if text.startswith(RE)} | self.got
        ledger.acked[self.queue] -= self.moved - there
        ledger.acked[self.queue] |= self.moved & there
        for text, sent in ledger.sent.items():
            if text in self.found and sent.expected == (self.queue,) and sent.state is State.PENDING:
                sent.state = State.CONFIRMED
