"""What does a TGP client do to a broker, and what do plain PUSH and PULL peers?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway_zeromq.tgp.codec import BYE, CANCEL, CONFIRM, DELIVER, EMPTY, ERROR, GOT, OK, PING, READY
from tests.simulation.ledger import Sent
from tests.simulation.sockets import Frame

if TYPE_CHECKING:
    from tests.simulation.world import World

HELLO, PUBLISH, CONSUME, ACK, NACK, CREDIT, GET, PONG, GOODBYE = 1, 3, 6, 9, 10, 11, 12, 23, 24
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.decode
REFUSING = {506}


class TgpClient:
    """One client name, over all its connections: it resumes its session and sends again what is undecided.

    ``undecided``: sequence number -> text, key and priority. ``held``: by number, the text of a delivery and its queue.
    """

    def __init__(self, name: str, world: World, queue: str) -> None:
        self.name = name
        self.queue = queue
        self.world = world
        self.undecided: dict[int, tuple[str, str, int]] = {}
        self.seq = 0
        self.token: str | None = None
        self.connections = 0
        self.identity: bytes | None = None
        self._anew = False

    def begin_life(self) -> None:
        self.identity = None
        self._anew = True

    # -- coming and going

    def connect(self) -> None:
        self.connections += 1
        self.identity = f"{self.name}.{self.connections}".encode()
        self._descriptor = self.world.next_descriptor()
        self.world.sockets.pump.mailboxes[self.identity] = []
        self.held: dict[int, tuple[str, str]] = {}
        self.credit = 0
        self._question = 0
        self._asked: dict[int, str] = {}
        self._ready = False
        self.world.log(f"{self.name} says hello")
        options: dict[str, Any] = {"client": self.name, "heartbeat_ms": 1_000}
        if self.token is not None:
            options["session"] = self.token
        self._say(HELLO, 0, 1, options)

    def die(self, *, noticed: bool) -> None:
        """It is gone. `noticed`: libzmq tells; else only its silence does."""
        if self.identity is not None:
            self.world.log(f"{self.name} dies {noticed}")
            del self.world.sockets.pump.mailboxes[self.identity]
            if noticed:
                self.world.sockets.router._disconnected(self._descriptor)
            self.identity = None

    def _say(self, *fields: Any, body: bytes | None = None) -> None:
        self.world.sockets.pump.arrive((self.identity, Frame(_pack(fields), self._descriptor), body, False, None))

    def _ask(self, command: int, what: str, *fields: Any) -> None:
        self._question += 1
        self._asked[self._question] = what
        self._say(command, self._question, *fields)

    # -- what it does

    def act(self) -> None:  # noqa: C901 - a table of what may happen
        chance = self.world.chance
        if self.identity is None:
            self.connect()
            return
        self.read(chance.choice((1, 5, 100, 1_000)))
        if self.identity is None or not self._ready:
            return
        what = chance.random()
        if what < 0.4:
            for _ in range(chance.randrange(1, 15)):
                self.publish()
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

    def publish(self) -> None:
        if len(self.undecided) > 300:
            return
        chance = self.world.chance
        self.seq += 1
        text = f"{self.name} {self.seq:06d}"
        key, priority = chance.choice(("work.a", "work.b")), chance.choice((0, 0, 2))
        self.world.ledger.submit(text, self.world.padded(text), Sent(self.name, self.seq, key, priority))
        self.undecided[self.seq] = (text, key, priority)
        self._publish(self.seq)

    def _publish(self, seq: int) -> None:
        text, key, priority = self.undecided[seq]
        props = {"priority": priority} if priority else None
        self._say(PUBLISH, seq, "amq.topic", key, props, 0, body=self.world.ledger.bodies[text])

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
            mine = [number for number, (_, whose) in self.held.items() if (whose == "t") is (tag == "t")]
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
                self._say(NACK, tag, number, multiple, True)
            else:
                for text in texts:
                    ledger.reject(self.queue, text)
                self._say(NACK, tag, number, multiple, False)

    # -- what it is told

    def read(self, most: int) -> None:
        mailbox = self.world.sockets.pump.mailboxes[self.identity or b""]
        for _ in range(min(most, len(mailbox))):
            frames = mailbox.pop(0)
            self._told(_unpack(frames[0]), frames[1] if len(frames) > 1 else b"")
            if self.identity is None:
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
        for seq in self.undecided:
            self.world.ledger.again(self.undecided[seq][0], anew=self._anew)
            self._publish(seq)
        self._anew = False

    def _confirmed(self, seq: int, multiple: bool, status: int) -> None:
        for decided in [each for each in self.undecided if each == seq or (multiple and each < seq)]:
            self._decided(decided, bool(status))

    def _decided(self, seq: int, refused: bool) -> None:
        text = self.undecided.pop(seq)[0]
        if refused:
            self.world.ledger.refuse(text)
        else:
            self.world.ledger.confirm(text)

    def _delivered(self, number: int, tag: str, body: bytes, *, redelivered: bool) -> None:
        text = body.decode().partition("\n")[0]
        self.held[number] = (text, tag)
        mine = sum(whose == tag for _, whose in self.held.values())
        self.world.ledger.check(
            mine <= (self.credit if tag else self.world.max_credit), f"{self.name} holds {mine}, credit is {self.credit}"
        )
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
        pass

    def act(self) -> None:
        outlet = self.world.sockets.outlet
        assert outlet.line is not None
        taken = self.world.chance.randrange(len(outlet.line) + 1)
        for frames in outlet.line[:taken]:
            self.take(frames)
        del outlet.line[:taken]
        outlet._rouse()

    def take(self, frames: list[bytes]) -> None:
        text = frames[-1].decode().partition("\n")[0]
        self.world.log(f"puller gets {text}")
        self.world.ledger.hand_over("pushed", text)

    def end_life(self) -> None:
        """What the library had is lost with the connection: that is what handing over means."""
        for frames in self.world.sockets.outlet.line or ():
            self.take(frames)
