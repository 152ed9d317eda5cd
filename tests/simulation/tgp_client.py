"""What does a TGP client do to a broker, and what do plain PUSH and PULL peers?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gateway_zeromq.tgp.commands import (
    BYE,
    CANCEL,
    CONFIRM,
    DELIVER,
    EMPTY,
    ERROR,
    GOT,
    NUMBERS,
    OK,
    PING,
    READY,
    SERVER_FIELDS,
    Part,
)
from tests.simulation.ledger import Sent
from tests.simulation.program import EXCHANGE, text_of

if TYPE_CHECKING:
    from tests.simulation.libzmq import Peer
    from tests.simulation.world import World

HELLO, PUBLISH, CONSUME, ACK, NACK, CREDIT, GET, PONG, GOODBYE, BATCH = 1, 3, 6, 9, 10, 11, 12, 23, 24, 25
_KINDS = {number: kind for kind, number in NUMBERS.items()}
_SAID = {name: (number, fields) for number, (name, fields) in SERVER_FIELDS.items()}
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.decode


def _as_json(fields: tuple[Any, ...]) -> bytes:
    """Return a header in the form for clients that are written by hand."""
    kind = _KINDS[fields[0]]
    named = dict(zip(kind.__struct_fields__, fields[1:], strict=False))
    if fields[0] == BATCH:
        named["messages"] = [dict(zip(Part.__struct_fields__, part, strict=True)) for part in named["messages"]]
    return msgspec.json.encode({"cmd": kind.__name__.upper(), **named})


def _heard(header: bytes) -> list[Any]:
    """Return number and fields of what the broker says."""
    if header[:1] != b"{":
        return list(_unpack(header))
    said = msgspec.json.decode(header)
    number, names = _SAID[said["cmd"]]
    return [number, *(said[name] for name in names if name in said)]


class Undecided(NamedTuple):
    """What was published and has no CONFIRM."""

    text: str
    key: str
    priority: int
    due_ms: int = 0

    @property
    def props(self) -> dict[str, Any] | None:
        return {"priority": self.priority} if self.priority else None


class TgpClient:
    """One client name, over all its connections: it resumes its session and sends again what is undecided.

    Where a broker serves more than this, it makes use of all that TGP/1 has: batches, schedules, delays, a limit in bytes, JSON.

    ``undecided``: by sequence number. ``held``: by number, the text of a delivery, its consumer, and its bytes.
    """

    def __init__(self, name: str, world: World, queue: str) -> None:
        self.name = name
        self.queue = queue
        self.world = world
        self.undecided: dict[int, Undecided] = {}
        self.seq = 0
        self.token: str | None = None
        self.connections = 0
        self.peer: Peer | None = None
        self._anew = False

    def begin_life(self) -> None:
        self.peer = None
        self._anew = True

    # -- coming and going

    def connect(self) -> None:
        self.connections += 1
        self.peer = self.world.sockets.router.meet(f"{self.name}.{self.connections}".encode(), self.world.next_descriptor())
        self.held: dict[int, tuple[str, str, int]] = {}
        self.credit = 0
        self._question = 0
        self._asked: dict[int, str] = {}
        self._ready = False
        self.world.log(f"{self.name} says hello")
        options: dict[str, Any] = {"client": self.name, "heartbeat_ms": 1_000}
        if self.token is not None:
            options["session"] = self.token
        self._json = self.world.is_served and self.world.chance.random() < 0.3
        self._most_bytes = self.world.chance.choice((0, 2_000)) if self.world.is_served else 0
        if self._most_bytes:
            options["credit_bytes"] = self._most_bytes
        self._say(HELLO, 0, 1, options)

    def die(self, *, noticed: bool) -> None:
        """It is gone. `noticed`: libzmq tells; else only its silence does."""
        if self.peer is not None:
            self.world.log(f"{self.name} dies {noticed}")
            self.peer.leave(noticed=noticed)
            self.peer = None

    def _say(self, *fields: Any, body: bytes | None = None) -> None:
        assert self.peer is not None
        header = _as_json(fields) if self._json else _pack(fields)
        self.peer.say(header, *(() if body is None else (body,)))

    def _ask(self, command: int, what: str, *fields: Any) -> None:
        self._question += 1
        self._asked[self._question] = what
        self._say(command, self._question, *fields)

    # -- what it does

    def act(self) -> None:
        chance = self.world.chance
        if self.peer is None:
            self.connect()
            return
        self.read(chance.choice((1, 5, 100, 1_000)))
        if self.peer is None or not self._ready:
            return
        what = chance.random()
        if what < 0.4:
            self.publish(chance.randrange(1, 15))
        elif what < 0.7:
            self.settle()
        elif what < 0.8:
            self._consume()
        elif what < 0.87:
            self._ask(GET, "get", self.queue, False)
        elif what < 0.92:
            self.die(noticed=True)
        elif what < 0.95:
            self.die(noticed=False)
        elif what < 0.97:
            self._say(GOODBYE, 200, "")
            self.die(noticed=False)

    def publish(self, amount: int) -> None:
        chance = self.world.chance
        first = self.seq + 1
        for _ in range(amount if len(self.undecided) < 300 else 0):
            self.seq += 1
            is_late = self.world.is_served and chance.random() < 0.05
            self._submit(chance.choice(("work.a", "work.b")), chance.choice((0, 0, 2)), is_late=is_late)
        self._publish([seq for seq in self.undecided if seq >= first])

    def _submit(self, key: str, priority: int, *, is_late: bool) -> None:
        ledger = self.world.ledger
        text = f"{self.name} {self.seq:06d}"
        sent = Sent(self.name, self.seq, key, priority, delayed=is_late)
        due_ms = 0
        if is_late:
            due_ms = self.world.engine.now_ms + self.world.chance.choice((1, 30, 500, 20_000))
            self.world.rules.due[text] = due_ms
            sent.expected = tuple(name for name in ledger.reaches(key) if not name.startswith("mqtt."))
        ledger.submit(text, self.world.padded(text), sent)
        self.undecided[self.seq] = Undecided(text, key, priority, due_ms)

    def _publish(self, seqs: list[int]) -> None:
        """Publish what is undecided, one by one or in batches."""
        for run in self._runs(seqs):
            bodies = [self.world.ledger.bodies[self.undecided[seq].text] for seq in run]
            if len(run) > 1:
                items = [self.undecided[seq] for seq in run]
                parts = [[len(body), EXCHANGE, item.key, item.props] for body, item in zip(bodies, items, strict=True)]
                self._say(BATCH, run[0], parts, body=b"".join(bodies))
            else:
                item = self.undecided[run[0]]
                self._say(PUBLISH, run[0], EXCHANGE, item.key, item.props, 0, item.due_ms, body=bodies[0])

    def _runs(self, seqs: list[int]) -> list[list[int]]:
        """Return what may be published together: numbers in a row, nothing that is for later."""
        runs = [seqs[:1]] if seqs else []
        for before, seq in pairwise(seqs):
            alone = self.undecided[before].due_ms or self.undecided[seq].due_ms or seq - before > 1
            if alone or not self.world.is_served or self.world.chance.random() < 0.3:
                runs.append([seq])
            else:
                runs[-1].append(seq)
        return runs

    def _consume(self) -> None:
        if not self.credit:
            self.credit = self.world.chance.choice((1, 4, 10))
            priority = self.world.chance.choice((0, 0, 2, -1))
            self._ask(CONSUME, "consume", self.queue, "t", self.credit, {"priority": priority} if priority else None)
        elif self.credit < 10:
            self.credit += 2
            self._say(CREDIT, "t", 2)

    def settle(self) -> None:
        """Settle some of what it holds: one at a time, or all up to one."""
        chance = self.world.chance
        ledger = self.world.ledger
        for tag in ("t", None):
            mine = [number for number, (_, whose, _) in self.held.items() if (whose == "t") is (tag == "t")]
            if not mine:
                continue
            number = chance.choice(mine)
            multiple = chance.random() < 0.5
            numbers = [each for each in mine if each <= number] if multiple else [number]
            texts = [self.held.pop(each)[0] for each in numbers]
            what = chance.random()
            if what < 0.7:
                for text in texts:
                    ledger.ack(self.queue, text)
                self._say(ACK, tag, number, multiple)
            elif what < 0.85:
                self.world.log(f"{self.name} gives back {texts}")
                delay_ms = chance.choice((0, 0, 1, 100, 3_000)) if self.world.is_served else 0
                self.world.ledger.postponed.update(texts if delay_ms else ())
                self._say(NACK, tag, number, multiple, True, delay_ms)
            else:
                for text in texts:
                    ledger.reject(self.queue, text)
                self._say(NACK, tag, number, multiple, False)

    # -- what it is told

    def read(self, most: int) -> None:
        for frames in self.peer.take(most) if self.peer is not None else ():
            self._told(_heard(frames[0]), frames[1] if len(frames) > 1 else b"")
            if self.peer is None:
                return

    def _told(self, fields: list[Any], body: bytes) -> None:
        command = fields[0]
        if command == READY:
            self._begin(fields[3])
        elif command == CONFIRM:
            self._confirmed(*fields[1:])
        elif command == DELIVER:
            self._delivered(fields[2], "t", body, redelivered=fields[3])
        elif command == GOT:
            self._delivered(fields[2], "", body, redelivered=fields[3])
        elif command == PING:
            self._say(PONG, fields[1])
        elif command == ERROR:
            self._error(*fields[1:])
        elif command == CANCEL:
            self.credit = 0
            self.held = {number: held for number, held in self.held.items() if held[1] != "t"}
        elif command == BYE:
            self.world.log(f"{self.name} is sent away: {fields}")
            self.die(noticed=False)
        else:
            assert command in (OK, EMPTY), fields

    def _error(self, r: int | None, code: int, text: str, command: int | None) -> None:
        self.world.log(f"{self.name} error {r} {code} {command}")
        if r is not None and self._asked.get(r) == "consume":
            self.credit = 0
        elif r is None and code == 401:  # it was taken for dead
            self.die(noticed=True)

    def _begin(self, options: dict[str, Any]) -> None:
        """Let in: take what is decided, send the rest again."""
        self._ready = True
        self.world.log(f"{self.name} is let in: {options['last_seq']} {options.get('refused')}")
        self.token = options["session"]
        last_seq = options["last_seq"]
        for seq in [seq for seq in self.undecided if seq <= last_seq]:
            refused = any(first <= seq <= last for first, last, _ in options.get("refused", ()))
            self._decided(seq, refused)
        self.seq = max(self.seq, last_seq)
        for item in self.undecided.values():
            self.world.ledger.again(item.text, anew=self._anew)
        self._publish(list(self.undecided))
        self._anew = False

    def _confirmed(self, seq: int, multiple: bool, status: int, _scheduled_id: int = 0) -> None:
        for decided in [each for each in self.undecided if each == seq or (multiple and each < seq)]:
            self._decided(decided, bool(status))

    def _decided(self, seq: int, refused: bool) -> None:
        text = self.undecided.pop(seq).text
        if refused:
            self.world.ledger.refuse(text)
        else:
            self.world.ledger.confirm(text)

    def _delivered(self, number: int, tag: str, body: bytes, *, redelivered: bool) -> None:
        text = text_of(body)
        self.held[number] = (text, tag, len(body))
        mine = sum(whose == tag for _, whose, _ in self.held.values())
        self.world.ledger.check(
            mine <= (self.credit if tag else self.world.max_credit), f"{self.name} holds {mine}, credit is {self.credit}"
        )
        sizes = [size for _, whose, size in self.held.values() if whose]
        fits = not self._most_bytes or not tag or len(sizes) == 1 or sum(sizes) <= self._most_bytes
        self.world.ledger.check(fits, f"{self.name} holds {sum(sizes)} bytes, it takes {self._most_bytes}")
        self.world.ledger.delivered(self.queue, text, redelivered=redelivered, consumer=f"{self.name} {tag}")


class Pusher:
    """A plain PUSH peer: it is told nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0

    def begin_life(self) -> None:
        pass

    def act(self) -> None:
        for _ in range(self.world.chance.randrange(1, 6)):
            self.count += 1
            text = f"pusher {self.count:06d}"
            body = self.world.padded(text)
            self.world.ledger.submit(text, body, Sent("pusher", self.count, "work.a"))
            self.world.sockets.inlet.arrive([b"work.a", body])


class Puller:
    """A plain PULL peer: what it is sent counts as settled."""

    def __init__(self, world: World) -> None:
        self.world = world

    def begin_life(self) -> None:
        self.peer = self.world.sockets.outlet.meet(b"puller", self.world.next_descriptor())

    def act(self) -> None:
        self.take(self.world.chance.randrange(len(self.peer.inbox) + 1))

    def take(self, amount: int) -> None:
        for frames in self.peer.take(amount):
            text = text_of(frames[-1])
            self.world.log(f"puller gets {text}")
            self.world.ledger.hand_over("pushed", text)

    def end_life(self) -> None:
        """What the library had is lost with the connection: that is what handing over means."""
        self.take(len(self.peer.inbox))
