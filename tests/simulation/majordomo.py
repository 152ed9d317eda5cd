"""What do Majordomo's clients and workers do to a broker?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from tests.simulation.ledger import Sent
from tests.simulation.program import text_of
from tests.simulation.questions import PART, RE, Book
from tests.simulation.sockets import BEAT_S, BUSY_S, LIVENESS

if TYPE_CHECKING:
    from tests.simulation.libzmq import Peer
    from tests.simulation.world import World

SERVICE = "sum"
QUEUE = f"mdp.{SERVICE}"
AT_ONCE_S = 1.0
A_MOMENT_S = 0.001
"""Times are not exact."""
IMPATIENT_S = 2.0
FIRST, SECOND = 1, 2
"""Majordomo 0.1 and 0.2."""
_HEADERS = {FIRST: (b"MDPC01", b"MDPW01"), SECOND: (b"MDPC02", b"MDPW02")}
_READY, _REQUEST, _PARTIAL = b"\1", b"\2", b"\3"
_FINAL = {FIRST: b"\3", SECOND: b"\4"}
_HEARTBEAT = {FIRST: b"\4", SECOND: b"\5"}
_TOLD_ALL = b"\3"
_DISCONNECT = {FIRST: b"\5", SECOND: b"\6"}


class _Speaker:
    """One end of a connection to the ROUTER endpoint, and its successors.

    Args:
        version: of Majordomo.
        is_named: it has a routing id of its own choice, and comes back under it.
    """

    def __init__(self, name: str, world: World, book: Book, *, version: int, is_named: bool) -> None:
        self.name = name
        self.world = world
        self.book = book
        self.version = version
        self.is_named = is_named
        self.peer: Peer | None = None
        self._enveloped = version == FIRST or world.chance.random() < 0.5

    def begin_life(self) -> None:
        self.peer = None

    def connect(self) -> None:
        sockets = self.world.sockets
        name = self.name.encode() if self.is_named else sockets.given_name()
        self.world.log(f"{self.name} connects")
        self.peer = sockets.router.meet(name, self.world.next_descriptor())

    def go(self, *, noticed: bool) -> None:
        if self.peer is not None:
            self.world.log(f"{self.name} is gone {noticed}")
            self.peer.leave(noticed=noticed)
            self.peer = None

    def _frames(self, *frames: bytes) -> list[bytes]:
        return [b"", *frames] if self._enveloped else list(frames)

    def _heard(self, frames: list[bytes]) -> list[bytes]:
        """Return what follows the header."""
        self.book.ledger.check((frames[0] == b"") is self._enveloped, f"{self.name} is sent the empty frame, or not: {frames[:2]}")
        return frames[2 if self._enveloped else 1 :]


class MdpClient(_Speaker):
    """Asks, and asks again until it is answered.

    ``open``: what has no answer, and when it was asked last. ``owed``: what a worker has answered, and when. ``asked``: what it may
    be told of; ``ours``: all of whose answers can reach it.
    """

    def __init__(self, name: str, world: World, book: Book, *, version: int, is_named: bool) -> None:
        super().__init__(name, world, book, version=version, is_named=is_named)
        self.count = 0
        self.asked: set[str] = set()
        self.ours: set[str] = set()
        self.open: dict[str, float] = {}
        self.owed: dict[str, float] = {}
        self.told: dict[str, int] = {}

    def begin_life(self) -> None:
        super().begin_life()
        self.owed.clear()
        self.is_known = False

    def go(self, *, noticed: bool) -> None:
        super().go(noticed=noticed)
        self.is_known = False
        self.owed.clear()

    def connect(self) -> None:
        super().connect()
        self.owed.clear()
        self.is_known = False
        if not self.is_named:
            self.asked, self.ours = set(), set()

    def act(self) -> None:
        chance = self.world.chance
        if self.peer is None:
            self.connect()
        self.read()
        what = chance.random()
        if what < 0.6:
            for _ in range(chance.randrange(1, 4)):
                self.ask()
        elif what < 0.75:
            self.ask_again()
        elif what < 0.85:
            self.go(noticed=chance.random() < 0.6)

    def ask(self) -> None:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        self.book.ledger.submit(text, self.world.padded(text), Sent(self.name, self.count, QUEUE, expected=(QUEUE,)))
        self._say(text)

    def ask_again(self, *, patience_s: float = IMPATIENT_S) -> None:
        for text, asked_at in list(self.open.items()):
            if trio.current_time() - asked_at >= patience_s:
                self.book.ledger.again(text, anew=True)
                self._say(text)

    def _say(self, text: str) -> None:
        assert self.peer is not None
        self.asked.add(text)
        if text not in self.open:
            self.ours.add(text)
        self.open[text] = trio.current_time()
        command = () if self.version == FIRST else (b"\1",)
        header = _HEADERS[self.version][0]
        frames = self._frames(header, *command, SERVICE.encode(), self.book.ledger.bodies[text])
        self.peer.say(*frames, taken=partial(self._taken, self.peer))

    def _taken(self, peer: Peer) -> None:
        """The broker knows it by what it says: until then an answer may go the way of its former connection."""
        self.is_known = peer is self.peer

    # -- what it is told

    def answered(self, text: str) -> None:
        """A worker has answered, and the broker has taken that: if this one is there it has to be told."""
        if self.is_known and text in self.open and text in self.ours:
            self.owed.setdefault(text, trio.current_time())

    def read(self) -> None:
        for frames in self.peer.take() if self.peer is not None else ():
            self._told(self._heard(frames))
        late = [text for text, since in self.owed.items() if trio.current_time() - since > AT_ONCE_S]
        self.book.ledger.check(not late, f"{self.name} was not told of the answers to {late}")

    def _told(self, frames: list[bytes]) -> None:
        kind = _TOLD_ALL if self.version == FIRST else frames.pop(0)
        said = [text_of(frame) for frame in frames[1:]]
        text = said[-1].removeprefix(RE).removeprefix(PART)
        check = self.book.ledger.check
        self.world.log(f"{self.name} is told {said}")
        check(text in self.asked, f"{self.name} is told {said}, which it did not ask")
        check(all(each in (PART + text, RE + text) for each in said), f"{self.name} is told {said} all at once")
        check((kind == _TOLD_ALL) is (said[-1] == RE + text), f"{self.name} is told {said} as {kind!r}")
        check(self.version == FIRST or len(said) == 1, f"{self.name} is told {said} at once")
        if said[-1] == RE + text:
            self.book.ledger.counts["told by Majordomo"] += 1
            self.told[text] = self.told.get(text, 0) + 1
            check(self.told[text] <= self.book.answers[text], f"{self.name} is told more than once what {text} is")
            self.open.pop(text, None)
            self.owed.pop(text, None)


class MdpWorker(_Speaker):
    """Answers for the service, one request at a time; goes, dies or sleeps in the middle of it.

    ``held``: address and text of its request. ``heard_at``: when the broker last took something that it said.
    """

    def __init__(self, name: str, world: World, book: Book, *, version: int, is_named: bool) -> None:
        super().__init__(name, world, book, version=version, is_named=is_named)
        self.held: tuple[bytes, str] | None = None
        self.has: str | None = None

    def begin_life(self) -> None:
        super().begin_life()
        self.held = self.has = None

    def connect(self) -> None:
        super().connect()
        self.held = self.has = None
        self.heard_at, self.is_lost = trio.current_time(), False
        assert self.peer is not None
        self.peer.told = partial(self._sent, self.peer)
        self._say(_READY, SERVICE.encode())

    def still_has(self, text: str) -> bool:
        is_ending = self.world.broker.draining.is_set()  # who is sent away last may be asked what the first one had
        return self.has == text and self.peer is not None and not is_ending and not self._is_silent()

    def _is_silent(self) -> bool:
        """Say whether it may be taken for dead; if it was, nothing that it says later helps."""
        limit_s = LIVENESS * BEAT_S if self.has is None else BUSY_S
        self.is_lost = self.is_lost or trio.current_time() >= self.heard_at + limit_s - A_MOMENT_S
        return self.is_lost

    def _sent(self, peer: Peer, frames: list[bytes]) -> None:
        """It is sent something, which it reads later, or never."""
        command, *rest = self._heard(frames)
        if command == _REQUEST and peer is self.peer:
            text = text_of(rest[2])
            self.book.ledger.check(self.has is None, f"{self.name} is asked {text}, and has {self.has}")
            self.book.handed(text, self)
            self.has = text

    def _say(self, *frames: bytes) -> None:
        assert self.peer is not None
        self.peer.say(*self._frames(_HEADERS[self.version][1], *frames), taken=self._taken)

    def _taken(self) -> None:
        self._is_silent()
        self.heard_at = trio.current_time()

    def act(self) -> None:
        chance = self.world.chance
        if self.peer is None:
            self.connect()
            return
        self.read()
        what = chance.random()
        if self.peer is None:
            return
        if what < 0.6:
            self.answer()
        elif what < 0.75:
            self.world.log(f"{self.name} is alive")
            self._say(_HEARTBEAT[self.version])
        elif what < 0.8:
            self._say(_DISCONNECT[self.version])
            self.go(noticed=chance.random() < 0.5)
        elif what < 0.88:
            self.go(noticed=chance.random() < 0.6)

    def go_on(self) -> None:
        """Do what there is to be done, and be alive."""
        self.read()
        self.answer(in_parts=False)
        if self.peer is not None and self.held is None:
            self._say(_HEARTBEAT[self.version])

    def read(self) -> None:
        for frames in self.peer.take() if self.peer is not None else ():
            command, *rest = self._heard(frames)
            if command == _REQUEST:
                self.held = (rest[0], text_of(rest[2]))
            elif command == _DISCONNECT[self.version]:
                self.world.log(f"{self.name} is sent away")
                self.go(noticed=True)
                return

    def answer(self, *, in_parts: bool | None = None) -> None:
        if self.held is None or self.peer is None:
            return
        address, text = self.held
        in_parts = self.version == SECOND and self.world.chance.random() < 0.3 if in_parts is None else in_parts
        if in_parts:
            self.world.log(f"{self.name} answers {text} in part")
            self._say(_PARTIAL, address, b"", (PART + text).encode())
            if self.world.chance.random() < 0.5:
                return
        self.held = None
        self.world.log(f"{self.name} answers {text}")
        frames = self._frames(_HEADERS[self.version][1], _FINAL[self.version], address, b"", (RE + text).encode())
        self.peer.say(*frames, taken=partial(self._answered, text))

    def _answered(self, text: str) -> None:
        in_time = self.still_has(text)
        self._taken()
        if self.has == text:
            self.has = None
        self.book.answered(text)
        if in_time:
            self.world.services.answered(text)
