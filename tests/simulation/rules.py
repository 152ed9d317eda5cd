"""Who may be handed which message, when, and how often?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.simulation.ledger import Ledger

SINGLE = frozenset(("single",))
"""Queues with one active consumer, which nothing but its own going deposes."""
LEASED = frozenset(("leased", "single-leased", "ruled"))
"""Queues whose deliveries somebody else may get though their holder has not settled them."""
RETURNS = {"poison": 2, "retry": 3}
"""How often a message may come back to a queue."""


class Rules:
    """What holds between the deliveries to programs on channels, in one life of a broker.

    ``due``: before which time a message may not come. ``latest_ms``: the latest that any life of the broker has known; what was due
    then may be there still when the next one is told an earlier time.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.due: dict[str, int] = {}
        self.latest_ms = 0
        self.begin_life()

    def begin_life(self) -> None:
        self._lines: dict[str, dict[str, int]] = {name: {} for name in SINGLE}
        self._active: dict[str, str] = {}
        self._holders: dict[tuple[str, str, str], tuple[str, Any]] = {}
        self._times: Counter[tuple[str, str, str]] = Counter()

    # -- whose turn it is

    def joins(self, queue: str, who: str, priority: int) -> None:
        """Somebody consumes from now on."""
        if queue in SINGLE:
            self._lines[queue][who] = priority
            self._active.setdefault(queue, who)

    def leaves(self, queue: str, who: str) -> None:
        """Somebody does not consume any more, and gives back what it holds."""
        self._holders = {place: holder for place, holder in self._holders.items() if holder[0] != who}
        if queue in SINGLE and self._lines[queue].pop(who, None) is not None and self._active[queue] == who:
            del self._active[queue]
            line = self._lines[queue]
            if line:
                self._active[queue] = max(line, key=line.__getitem__)  # of equals the one that came first

    # -- deliveries

    def delivered(self, queue: str, who: str, delivery: Any, text: str, origin: str, now_ms: int) -> None:
        """Somebody is handed a message. `now_ms`: the broker's time."""
        check = self.ledger.check
        self.latest_ms = max(self.latest_ms, now_ms)
        due_ms = self.due.get(text, 0)
        check(self.latest_ms >= due_ms, f"{queue} delivered {text} at {now_ms}, it was not due before {due_ms}")
        check(queue not in SINGLE or self._active.get(queue) == who, f"{who} was handed {text}, but {queue} is {self._active}'s")
        most = RETURNS.get(queue)
        check(most is None or delivery.count <= most + 1, f"{queue} delivers {text} for the {delivery.count}th time")
        if not self._is_one(text):
            return
        place = (queue, origin, text)
        self._times[place] += 1
        check(most is None or self._times[place] <= most + 1, f"{queue} delivered {text} {self._times[place]} times")
        former = self._holders.get(place)
        check(
            former is None or queue in LEASED or former[0].partition("#")[0] == who.partition("#")[0],
            f"{who} was handed {text} of {queue}, which {former and former[0]} holds",
        )
        self._holders[place] = (who, delivery)

    def may_settle(self, queue: str, who: str, delivery: Any, text: str, origin: str) -> None:
        """Somebody is about to settle a delivery, or to give it back: what is another's by now it must be refused."""
        place = (queue, origin, text)
        holder = self._holders.get(place)
        if holder is None or holder[1] is delivery or not self._is_one(text):
            self._holders.pop(place, None)
            return
        self.ledger.check(queue in LEASED and delivery.settled, f"{who} may settle {text} of {queue}, which {holder[0]} holds")

    def _is_one(self, text: str) -> bool:
        sent = self.ledger.sent.get(text)
        return sent is not None and sent.submissions == 1 and not sent.delayed
