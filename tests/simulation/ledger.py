"""What was promised to whom, what came, and do the two agree?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from hashlib import sha256


class Wrong(AssertionError):
    """An invariant that does not hold."""


class State(Enum):
    PENDING = "nobody knows"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


@dataclass(slots=True)
class Sent:
    """One message. ``expected``: durable queues that must account for it once it is confirmed. ``submissions``: how often it was
    handed to a broker that could not know of the earlier time. ``ordered``: it may not overtake others, nor be overtaken. ``qos``,
    ``retain``, ``expiry_s``: as it was published, if that was by MQTT. ``copies``: another key that it goes to."""

    publisher: str
    index: int
    key: str
    priority: int = 0
    persistent: bool = True
    mortal: bool = False
    delayed: bool = False
    ordered: bool = True
    expected: tuple[str, ...] = ()
    state: State = State.PENDING
    submissions: int = 1
    qos: int = 0
    retain: bool = False
    expiry_s: int = 0
    copies: str = ""


@dataclass(slots=True)
class Shape:
    """What is known of a queue that keeps its messages.

    ``patterns``: by what it is bound. ``to_graves``: what it gives up is dead-lettered. ``lossy``: what it gives up is gone, by a
    rule. ``tidy``: it keeps its order. ``exact``: who consumes from it sees every delivery that the engine makes.
    """

    patterns: dict[str, int] = field(default_factory=dict)
    to_graves: bool = False
    lossy: bool = False
    tidy: bool = True
    exact: bool = True


@cache
def matches(pattern: str, key: str) -> bool:
    """Say whether a topic pattern matches, by the definition and with no regard to speed."""
    return _match(pattern.split("."), key.split(".") if key else [])


def _match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_match(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _match(pattern[1:], words[1:])


class Ledger:
    """The memory of a world, over all lives of its broker.

    ``acked``: by queue, what somebody settled for good. ``handed``: what went to who gives no acknowledgement. ``excused``: what a
    purge or deletion took. ``landed``: bodies that were ever on disk.
    ``inexact``: queues of which not every delivery is seen when it is made.
    ``postponed``: what was given back for later. ``look``: called before something is held to be confirmed.
    """

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.shapes: dict[str, Shape] = {}
        self.landed: set[bytes] = set()
        self.bodies: dict[str, bytes] = {}
        self.acked: dict[str, set[str]] = defaultdict(set)
        self.handed: dict[str, set[str]] = defaultdict(set)
        self.excused: dict[str, set[str]] = defaultdict(set)
        self.retained: dict[str, int] = {}
        self.never: set[str] = set()
        self.inexact: set[str] = set()
        self.postponed: set[str] = set()
        self.tail: list[str] = []
        self.steps = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.wrong: Wrong | None = None
        self.look: Callable[[], None] = lambda: None
        self._hash = sha256()
        self._lives = 0
        self._seen: set[tuple[str, str]] = set()
        self._unflagged: dict[tuple[str, str, int], int] = defaultdict(int)
        self._last: dict[tuple[str, str, str, int], int] = {}
        self.begin_life()

    def begin_life(self) -> None:
        """A broker starts: what it knew beyond the disk is forgotten."""
        self._lives += 1
        self._acked_now: dict[str, set[str]] = defaultdict(set)
        self._withdrawn: dict[str, set[str]] = defaultdict(set)

    # -- the trace ----------------------------------------------------------

    def log(self, line: str) -> None:
        """Note what happened: all of it makes the trace, the last lines are told if something is wrong."""
        self.steps += 1
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.tail.append(line)
        if len(self.tail) > 400:
            del self.tail[:200]

    @property
    def trace(self) -> str:
        return self._hash.hexdigest()

    def check(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong = self.wrong or Wrong(what)  # who calls may be told by the broker, which catches what is raised
            raise self.wrong

    # -- publishers ---------------------------------------------------------

    def reaches(self, key: str) -> tuple[str, ...]:
        """Return the durable queues that a message of QoS 1 must reach now."""
        return tuple(
            name
            for name, shape in self.shapes.items()
            if any(qos and matches(pattern, key) for pattern, qos in shape.patterns.items())
        )

    def submit(self, text: str, body: bytes, sent: Sent) -> None:
        """A message is on its way to the broker."""
        if sent.persistent and not sent.expected:
            sent.expected = self.reaches(sent.key)
        self.sent[text] = sent
        self.bodies[text] = body
        self.log(f"publish {text}")

    def again(self, text: str, *, anew: bool) -> None:
        """A message is sent again. `anew`: the broker can't know, or does not care, that it is the same."""
        sent = self.sent[text]
        sent.submissions += anew
        self.never.discard(text)
        for texts in self._withdrawn.values():
            texts.discard(text)
        sent.expected = tuple(queue for queue in sent.expected if queue in self.reaches(sent.key))
        self.log(f"again {text}")

    def confirm(self, text: str) -> None:
        """Its publisher was promised that it is safe: it is on disk, or whoever wanted it has it."""
        self.look()
        sent = self.sent[text]
        self.counts["confirmed"] += 1
        self.log(f"confirmed {text}")
        sent.state = State.CONFIRMED
        if sent.persistent and self.bodies[text] not in self.landed:
            for queue in sent.expected:
                shape = self.shapes.get(queue)
                if shape is None or shape.lossy or shape.to_graves or sent.mortal:
                    continue
                has_it = text in self.acked[queue] or text in self.excused[queue]
                self.check(has_it, f"{text} is confirmed, but neither on disk nor settled in {queue}")

    def refuse(self, text: str, *, at_once: bool = False) -> None:
        """Its publisher was told no. `at_once`: it was never taken."""
        sent = self.sent[text]
        self.counts["refused"] += 1
        self.log(f"refused {text} {at_once}")
        if sent.state is State.PENDING:
            sent.state = State.REFUSED
        if sent.submissions > 1 or sent.delayed or not sent.persistent:
            return  # only what must last, and the broker has not published by itself, is taken back
        if at_once:
            self.never.add(text)
        for queue, shape in self.shapes.items():
            if shape.exact and queue not in self.inexact and (queue, text) not in self._seen:
                self._withdrawn[queue].add(text)

    # -- consumers ----------------------------------------------------------

    def delivered(self, queue: str, text: str, *, redelivered: bool, origin: str = "", consumer: str = "") -> None:
        """A message came out of a queue. `origin`: whose dead letter it is. `consumer`: who learns of it later than others may."""
        place = f"{queue}<{origin}" if origin else queue
        sent = self.sent.get(text)
        self.counts["delivered"] += 1
        self.log(f"{place} delivers {text} {redelivered}")
        self.check(sent is not None, f"{place} delivered {text!r}, which nobody sent")
        assert sent is not None
        self.check(text not in self.never or origin, f"{place} delivered {text}, which was refused at once")
        known = not consumer and text in self._withdrawn[place]
        self.check(not known, f"{place} delivered {text}, which was refused and had not been delivered")
        if sent.submissions == 1 and not consumer:
            self.check(text not in self._acked_now[place], f"{place} delivered {text} again after it was acknowledged")
        self._seen.add((place, text))
        if redelivered:
            return
        # What the broker itself publishes, it publishes again if the power went before that was on disk.
        when = (place, text, self._lives if origin or sent.delayed else 0)
        self._unflagged[when] += 1
        self.check(self._unflagged[when] <= sent.submissions, f"{place} delivered {text} twice without the redelivered flag")
        if sent.submissions == 1 and sent.ordered and not sent.delayed and not origin:
            where = (f"{queue} {consumer} {sent.qos}", sent.publisher, sent.key, sent.priority)
            self.check(
                self._last.get(where, -1) < sent.index, f"{place} delivered {text} out of order, after {self._last.get(where)}"
            )
            self._last[where] = sent.index

    def ack(self, queue: str, text: str, origin: str = "", *, certain: bool = False) -> None:
        """Somebody has settled a delivery for good. `certain`: the broker knows by now."""
        self.log(f"{queue} ack {text}")
        self.acked[queue].add(text)
        if certain:
            self._acked_now[f"{queue}<{origin}" if origin else queue].add(text)

    def reject(self, queue: str, text: str) -> None:
        """Somebody does not want it: it is dead-lettered, or gone by that."""
        self.log(f"{queue} reject {text}")
        shape = self.shapes.get(queue)
        if shape is None or not shape.to_graves:
            self.excused[queue].add(text)

    def hand_over(self, queue: str, text: str) -> None:
        """A message went to who gives no acknowledgement."""
        self.handed[queue].add(text)

    def forgive(self, queue: str) -> None:
        """A queue was purged or deleted: what it had may be gone."""
        self.log(f"{queue} forgives")
        self.excused[queue].update(text for text, sent in self.sent.items() if queue in sent.expected)
        self.unsure(queue)

    def excuse_everywhere(self, text: str) -> None:
        """It was taken back before it was published."""
        self.log(f"cancelled {text}")
        self.sent[text].expected = ()

    def unsure(self, queue: str) -> None:
        """A binding goes: what nobody was promised yet may or may not reach a queue."""
        for sent in self.sent.values():
            if sent.state is State.PENDING and queue in sent.expected:
                sent.expected = tuple(name for name in sent.expected if name != queue)

    # -- the end ------------------------------------------------------------

    def audit(self, left: dict[str, list[str]], dropped: int, letters: list[tuple[str, str]]) -> None:
        """Compare what was promised with what came and with what is left.

        Args:
            left: by queue, what a last broker still had, in its order.
            dropped: how many messages the brokers counted as dropped by a rule.
            letters: of the dead letters that are left, whose they were, and the text.
        """
        for queue, text in letters:
            both = self.sent[text].submissions == 1 and text in left.get(queue, ())
            self.check(not both, f"{queue} still has {text}, which was dead-lettered")
        found = {queue: set(texts) for queue, texts in left.items()}
        graves = found.get("graves", set()) | self.acked["graves"]
        by_rule = 0
        for text, sent in self.sent.items():
            if sent.state is not State.CONFIRMED or not sent.persistent:
                continue
            for queue in sent.expected:
                shape = self.shapes.get(queue)
                had = text in self.acked[queue] or text in self.handed[queue] or text in self.excused[queue]
                if shape is None or had or text in found.get(queue, ()) or (shape.to_graves and text in graves):
                    continue
                self.check(
                    shape.lossy or (sent.mortal and not shape.to_graves),
                    f"{text} was confirmed and lost: {queue} has no trace of it",
                )
                by_rule += 1
        self.check(by_rule <= dropped, f"{by_rule} messages went by a rule, but only {dropped} were counted")
        for queue, texts in left.items():
            self._check_left(queue, texts)

    def _keeps_order(self, text: str) -> bool:
        sent = self.sent[text]
        return sent.submissions == 1 and sent.ordered and not sent.delayed and text not in self.postponed

    def _check_left(self, queue: str, texts: list[str]) -> None:
        if queue == "graves":
            return
        shape = self.shapes.get(queue)
        last: dict[tuple[str, str, int], int] = {}
        times: dict[str, int] = defaultdict(int)
        for text in texts:
            self.check(text in self.sent, f"{queue} has {text!r}, which nobody sent")
            self.check(text not in self.never, f"{queue} has {text}, which was refused at once")
            sent = self.sent[text]
            if sent.retain:  # a session may have it once more, for a new subscription
                continue
            times[text] += 1
            self.check(times[text] <= sent.submissions, f"{queue} has {text} twice")
            if shape is not None and shape.tidy and self._keeps_order(text):
                where = (sent.publisher, sent.key, sent.priority)
                self.check(last.get(where, -1) < sent.index, f"{queue} has {text} out of order")
                last[where] = sent.index
