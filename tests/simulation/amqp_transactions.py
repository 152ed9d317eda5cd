"""What do AMQP clients do in transactions, and did each of these happen as a whole, or not at all?"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from pamqp import commands

from tests.simulation.amqp_client import OVERLOADED
from tests.simulation.amqp_roles import LASTING, NOWHERE, AmqpConsumer
from tests.simulation.amqp_wire import Content
from tests.simulation.ledger import Ledger, Sent, State
from tests.simulation.program import EXCHANGE

if TYPE_CHECKING:
    from tests.simulation.world import World

INPUTS, OUTPUTS, STRICT = "tx-in", "tx-out", "tx-strict"
PRECONDITION_FAILED = 406
MOST_UNANSWERED = 2
Basic, Tx = commands.Basic, commands.Tx


class Fate(Enum):
    UNKNOWN = "nobody knows"
    DONE = "the client was told that it is done"
    NEVER = "it was not committed"


@dataclass(slots=True)
class Unit:
    """One transaction.

    ``inputs``: what it acknowledges, by tag. ``given_back``: what it gives back. ``outputs``: what is there if it has happened.
    ``nowhere``: what has to come back before it is answered.
    """

    who: str
    inputs: dict[int, tuple[str, str]] = field(default_factory=dict)
    given_back: dict[int, tuple[str, str]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    nowhere: set[str] = field(default_factory=set)
    is_rollback: bool = False
    fate: Fate = Fate.UNKNOWN


class TxBook:
    """All transactions of a world."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.units: list[Unit] = []

    def close(self, left: dict[str, list[str]]) -> None:
        """Look at what is left of inputs and outputs, of which nobody takes any but transactions, and nobody any."""
        check = self._ledger.check
        there = Counter(left.get(OUTPUTS, ()))
        inputs = set(left.get(INPUTS, ()))
        used: Counter[str] = Counter()
        for unit in self.units:
            found = [text for text in unit.outputs if there[text]]
            check(not found or len(found) == len(unit.outputs), f"of a transaction of {unit.who} there is only {found}: {unit}")
            check(unit.fate is not Fate.DONE or found or not unit.outputs, f"a transaction was answered and is lost: {unit}")
            check(unit.fate is not Fate.NEVER or not found, f"a transaction was not committed, but there is {found}: {unit}")
            if found:
                texts = [text for text, _ in unit.inputs.values()]
                used.update(texts)
                both = [text for text in texts if text in inputs]
                check(not both, f"{both} was settled by a transaction and is still there: {unit}")
        for text, times in used.items():
            check(times == 1, f"{text} was settled by {times} transactions")
        self._check_unused({text for unit in self.units for text, _ in unit.inputs.values()} - set(used), inputs)
        self._ledger.counts["transactions"] += sum(unit.fate is Fate.DONE for unit in self.units)

    def _check_unused(self, texts: set[str], inputs: set[str]) -> None:
        for text in texts:
            sent = self._ledger.sent[text]
            kept = (
                sent.state is State.CONFIRMED and sent.persistent and not sent.mortal and text not in self._ledger.excused[INPUTS]
            )
            self._ledger.check(not kept or text in inputs, f"{text} is gone, and no transaction that settles it has happened")


class AmqpTransactor(AmqpConsumer):
    """Takes inputs, and publishes outputs in their place."""

    def __init__(self, name: str, world: World, book: TxBook) -> None:
        super().__init__(name, world, INPUTS)
        self.book = book
        self.may_end = (OVERLOADED, PRECONDITION_FAILED)
        self.count = 0
        self.unit: Unit | None = None
        self.unanswered: deque[Unit] = deque()

    def begin(self) -> None:
        self.say(Tx.Select())
        super().begin()

    def act(self) -> None:
        chance = self.world.chance
        what = chance.random()
        if len(self.unanswered) >= MOST_UNANSWERED:
            return
        if self.unit is None:
            self.unit = Unit(self.who)
            self.book.units.append(self.unit)
        if chance.random() < 0.8:
            self._collect(self.unit)
        if what < 0.5 and self.unit.outputs:
            self._commit(self.unit)
        elif what > 0.85:
            self._roll_back(self.unit)

    def go_on(self) -> None:
        """Nothing more: what it has is left to the end."""

    def _collect(self, unit: Unit) -> None:
        chance = self.world.chance
        for tag in [tag for tag in self.held if chance.random() < 0.5][:4]:
            gives_back = chance.random() < 0.1
            (unit.given_back if gives_back else unit.inputs)[tag] = self.held.pop(tag)
            self.say(Basic.Nack(tag, False, True) if gives_back else Basic.Ack(tag, False))
        for _ in range(chance.randrange(1, 4)):
            self._output(unit, chance.choice(("tx.a", "tx.a", "tx.b", NOWHERE)))

    def _output(self, unit: Unit, key: str) -> None:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        data = self.world.padded(text)
        self.ledger.submit(text, data, Sent(self.who, self.count, key))
        self.publish(EXCHANGE, key, data, mandatory=True, delivery_mode=LASTING)
        if key == NOWHERE:
            unit.nowhere.add(text)
        else:
            unit.outputs.append(text)

    def _commit(self, unit: Unit) -> None:
        self.world.log(f"{self.who} commits {list(unit.inputs.values())} for {unit.outputs}")
        for text, _ in unit.inputs.values():
            self.ledger.ack(INPUTS, text)
        self.say(Tx.Commit())
        self.unanswered.append(unit)
        self.unit = None

    def _roll_back(self, unit: Unit) -> None:
        self._never(unit)
        unit.is_rollback = True
        self.say(Tx.Rollback())
        self.unanswered.append(unit)
        self.unit = None

    def _never(self, unit: Unit) -> None:
        self.world.log(f"{self.who} leaves {unit.outputs}")
        unit.fate = Fate.NEVER
        for text in (*unit.outputs, *unit.nowhere):
            self.ledger.refuse(text, at_once=True)

    def overheard(self, what: Any) -> None:
        match what:
            case Tx.CommitOk():
                self._done(next(unit for unit in self.unanswered if not unit.is_rollback and unit.fate is Fate.UNKNOWN))
            case Content(method=Basic.Return()):
                unit = next((unit for unit in self.unanswered if what.text in unit.nowhere), None)
                self.ledger.check(unit is not None, f"{self.who} gets {what.text} back, which goes somewhere, or was not committed")
                assert unit is not None
                unit.nowhere.discard(what.text)

    def all_told(self) -> None:
        late = [unit for unit in self.unanswered if not unit.is_rollback and unit.fate is Fate.UNKNOWN]
        self.ledger.check(not late, f"{self.who} is closed, and was not told of {late}")

    def _done(self, unit: Unit) -> None:
        self.ledger.check(not unit.nowhere, f"{unit.nowhere} did not come back before {self.who} was told that it is done")
        unit.fate = Fate.DONE
        for text in unit.outputs:
            self.ledger.confirm(text)

    def heard(self, what: Any) -> None:
        if isinstance(what, Tx.CommitOk | Tx.RollbackOk):
            unit = self.unanswered.popleft()
            self.ledger.check(isinstance(what, Tx.RollbackOk) is unit.is_rollback, f"{self.who} is told {what} for {unit}")
            if unit.is_rollback:
                self.held.update({**unit.inputs, **unit.given_back})
                self.held = dict(sorted(self.held.items()))
        else:
            super().heard(what)

    def together(self) -> int:
        unit = self.unit
        rest = () if unit is None else (*unit.inputs.values(), *unit.given_back.values())
        return super().together() + sum(bool(whose) for _, whose in rest)

    def gone(self) -> None:
        super().gone()
        if self.unit is not None:
            self._never(self.unit)
            self.unit = None
        self.unanswered.clear()
