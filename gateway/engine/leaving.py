"""What becomes of the last values of an exchange that was deleted?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.engine.rounds import Rounds
from gateway.model.records import Retained, StatePut
from gateway.routing.keytree import KeyTree

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.retained import LastValue

LEAVING = "engine.retained.leaving"
"""Of the records that say so: key JSON of virtual host and exchange, value the number of the deletion."""
SINCE = "engine.retained.since"
"""What was put since, while the former values still go: key JSON of virtual host, exchange and key, value that number."""

AT_ONCE = 500

Where = tuple[str, str]
Release = Callable[[str, str, str, "LastValue"], bool]
"""``(vhost, exchange, key, value) -> its record on disk has to go, too``"""


class Departure:
    """One exchange whose former values go; ``since`` are the keys that got a value of their own meanwhile.

    ``number`` is 0 as long as nothing is on disk that says so.
    """

    __slots__ = ("number", "since", "trees")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.trees: list[KeyTree[LastValue]] = []
        self.since: set[str] = set()


class Leaving:
    """Former values are out of sight at once, and go from memory and disk a part at a time; restarts may come in between.

    Args:
        release: lets go of one value.
    """

    __slots__ = ("_departures", "_engine", "_found", "_last", "_release", "_rounds", "_spent")

    def __init__(self, engine: Engine, release: Release) -> None:
        self._engine: Engine = engine
        self._release: Release = release
        self._departures: dict[Where, Departure] = {}
        self._found: dict[Where, dict[str, int]] = {}
        self._spent: list[str] = []
        self._last: int = 0
        self._rounds: Rounds = Rounds(engine, self._go_on)

    def __bool__(self) -> bool:
        return bool(self._departures)

    def leave(self, vhost: str, exchange: str, tree: KeyTree[LastValue]) -> None:
        """Have the values of a deletion go; what was put before it is gone as well. In the batch of the deletion."""
        where = (vhost, exchange)
        departure = self._departures.get(where)
        if departure is None and len(tree) <= AT_ONCE and self._engine.refusal is None:
            self._let_go(where, tree)
            return
        if departure is None:
            departure = self._departures[where] = Departure(0)
        departure.trees.append(tree)
        self._spent += [_text(*where, key) for key in departure.since]
        departure.since.clear()
        self._note(where, departure)
        self._rounds.begin()

    def put(self, vhost: str, exchange: str, key: str) -> None:
        """Note that a value is a new one, not of those that go."""
        departure = self._departures.get((vhost, exchange))
        if departure is not None and key not in departure.since:
            if not departure.number:
                self._note((vhost, exchange), departure)
            departure.since.add(key)
            self._engine.kept.put_state(SINCE, _text(vhost, exchange, key), b"%d" % departure.number)

    def _note(self, where: Where, departure: Departure) -> None:
        """Have it last that all values go, but for those that are put from now on."""
        self._last += 1
        departure.number = self._last
        self._engine.kept.put_state(LEAVING, _text(*where), b"%d" % self._last)

    # -- a part at a time ---------------------------------------------------

    def _go_on(self) -> bool:
        self._look_at_found()
        where, departure = next(iter(self._departures.items()), (None, None))
        if where is None or departure is None:
            for text in self._spent[-AT_ONCE:]:
                self._engine.kept.put_state(SINCE, text, None)
            del self._spent[-AT_ONCE:]
        elif departure.trees:
            self._let_go(where, departure.trees[-1])
            if not len(departure.trees[-1]):
                departure.trees.pop()
        else:
            del self._departures[where]
            self._engine.kept.put_state(LEAVING, _text(*where), None)
            self._spent += [_text(*where, key) for key in departure.since]
        return bool(self._departures or self._spent)

    def _let_go(self, where: Where, tree: KeyTree[LastValue]) -> None:
        """Let go of a part of a tree."""
        for key, value in tree.take(AT_ONCE):
            if self._release(*where, key, value):
                self._engine.kept.values.record(Retained(*where, key, None))

    # -- recovery -----------------------------------------------------------

    def orphan(self, vhost: str, exchange: str, key: str, value: LastValue) -> None:
        """Take a value, in no tree, of an exchange that did not outlast the restart."""
        departure = self._departures.setdefault((vhost, exchange), Departure(0))
        if not departure.trees:
            departure.trees.append(KeyTree())
        departure.trees[0].put(key, value)
        self._rounds.begin(0)

    def replay(self, record: StatePut) -> None:
        """Take what the journal kept, behind all last values."""
        names = json.loads(record.key)
        number = int(record.value or b"0")
        self._last = max(self._last, number)
        self._rounds.begin(0)
        where = (names[0], names[1])
        if record.namespace == SINCE:
            departure = self._departures.get(where)
            self._found.setdefault(where, {})[names[2]] = number
            if departure is not None:
                self._bring_back(where, departure, {names[2]: number})
            return
        departure = self._departures.setdefault(where, Departure(number))
        departure.number = number
        tree = self._engine.kept.values.detach(*where)
        if tree is not None:
            departure.trees.append(tree)
        self._bring_back(where, departure, self._found.get(where, {}))

    def _bring_back(self, where: Where, departure: Departure, since: dict[str, int]) -> None:
        for key, number in since.items():
            if number != departure.number or key in departure.since:
                continue
            departure.since.add(key)
            for tree in departure.trees:
                value = tree.get(key)
                if value is not None:
                    tree.remove(key)
                    self._engine.kept.values.attach(*where, key, value)

    def _look_at_found(self) -> None:
        """Once after recovery: what was noted for deletions that are done is forgotten."""
        for where, since in self._found.items():
            departure = self._departures.get(where)
            kept = departure.since if departure is not None else ()
            self._spent += [_text(*where, key) for key in since if key not in kept]
        self._found = {}
        for where, departure in self._departures.items():
            if not departure.number:
                self._note(where, departure)


def _text(*names: str) -> str:
    return json.dumps(names)
