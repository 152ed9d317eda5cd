"""What does an AMQP client do with its connection and its channels, and what may become of them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pamqp import base, commands, heartbeat

from tests.simulation.amqp_wire import CAPABILITIES, HEADER, HEARTBEAT, Link, published

if TYPE_CHECKING:
    from tests.simulation.world import World

EVERYTHING = 1_000_000
FORCED, OVERLOADED = 320, 506
GOODBYE = commands.Connection.Close(200, "", 0, 0)
DONE = commands.Channel.Close(200, "", 0, 0)


class Role:
    """What a client does on one channel, which it opens again and again.

    ``number``: of its channel; 0: it has none. ``who``: this channel, and no other. ``may_end``: with which codes the broker may
    close it. ``is_refused``: the broker has closed it, be it that the client knows or not.
    """

    may_end: tuple[int, ...] = (OVERLOADED,)

    def __init__(self, name: str, world: World) -> None:
        self.name = self.who = name
        self.world = world
        self.ledger = world.ledger
        self.client: AmqpClient
        self.number = 0
        self.is_closing = self.is_refused = False
        self._opened = 0

    def open(self, number: int) -> None:
        self.number = number
        self.is_closing = self.is_refused = False
        self._opened += 1
        self.who = f"{self.name}#{self._opened}"
        self.say(commands.Channel.Open())
        self.begin()

    def say(self, *methods: base.Frame) -> None:
        self.client.link.say(self.number, *methods)

    def publish(self, exchange: str, key: str, data: bytes, **fields: Any) -> None:
        link = self.client.link
        link.connection.write(published(self.number, exchange, key, data, link.frame_max, **fields))

    def close(self) -> None:
        self.world.log(f"{self.who} closes")
        self.is_closing = True
        self.say(DONE)

    def begin(self) -> None:
        """The channel is being opened."""

    def act(self) -> None:
        """Do something."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Do what there is to do, nothing new: at the end."""

    def heard(self, what: Any) -> None:
        """The client has got to something."""

    def overheard(self, what: Any) -> None:
        """The broker has said something, which the client may never get to."""

    def all_told(self) -> None:
        """The broker says that it has closed what the client closed: all that it was asked before is decided."""

    def gone(self) -> None:
        """The channel is no more."""


class AmqpClient:
    """A client over all its connections. ``roles``: one for each of its channels. ``is_blocked``: it was told so."""

    def __init__(self, name: str, world: World, *roles: Role) -> None:
        self.name = name
        self.world = world
        self.roles = roles
        self.link: Link
        self.is_connected = self.is_ready = self.is_leaving = self.is_blocked = False
        self._by_number: dict[int, Role] = {}
        self._crossed: set[int] = set()
        self._last = 0
        for role in roles:
            role.client = self

    # -- coming and going

    def begin_life(self) -> None:
        self.lost()

    def lost(self) -> None:
        """There is no connection any more, and there are no channels."""
        self.is_connected = self.is_ready = False
        for role in self._by_number.values():
            role.number = 0
            role.gone()
        self._by_number.clear()
        self._crossed.clear()

    def connect(self) -> None:
        chance = self.world.chance
        self.world.log(f"{self.name} connects")
        self.link = Link(self, self.world.amqp.gateway.connect(self.name), chance.choice((4_096, 131_072)))
        self.is_connected = True
        self.is_leaving = self.is_blocked = False
        self._heartbeat_s = chance.choice((0, 0, 3))
        self.link.connection.write(HEADER)

    def vanish(self) -> None:
        if self.is_connected:
            self.world.log(f"{self.name} vanishes")
            self.link.connection.hang_up()
            self.lost()

    def leave(self) -> None:
        self.world.log(f"{self.name} leaves")
        self.is_leaving = True
        self.link.say(0, GOODBYE)

    # -- what it does

    def act(self) -> None:
        chance = self.world.chance
        if not self.is_connected:
            self.connect()
            return
        self.read(chance.choice((0, 100, 3_000, EVERYTHING, EVERYTHING)))
        if not self.is_ready or self.is_leaving:
            return
        if self._heartbeat_s:
            self.link.connection.write(HEARTBEAT)
        what = chance.random()
        if what < 0.02:
            self.vanish()
        elif what < 0.04:
            self.leave()
        else:
            for role in self._open_roles():
                if chance.random() < 0.02:
                    role.close()
                else:
                    for _ in range(chance.randrange(4)):
                        if not role.is_closing:
                            role.act()

    def go_on(self) -> None:
        """Come back, and do what there is to do."""
        if not self.is_connected:
            self.connect()
        self.read(EVERYTHING)
        if self.is_ready and not self.is_leaving:
            for role in self._open_roles():
                role.go_on()

    def _open_roles(self) -> list[Role]:
        """Return those that have a channel; the others open one."""
        for role in self.roles:
            if not role.number:
                role.open(self._free_number(role))
        return [role for role in self.roles if not role.is_closing]

    def _free_number(self, role: Role) -> int:
        first = 1 if self.world.chance.random() < 0.5 else self._last + 1
        number = first
        while number in self._by_number or number in self._crossed:
            number = number % 2_000 + 1
        self._last = number
        self._by_number[number] = role
        return number

    # -- what it is told

    def overheard(self, number: int, what: Any) -> None:
        """The broker has said something."""
        if self.world.is_dead:
            return
        if isinstance(what, commands.Connection.Close | commands.Connection.CloseOk):
            for each in self._by_number.values():
                self._ended(each, what)
        role = self._by_number.get(number)
        if role is not None:
            self._ended(role, what)
            role.overheard(what)

    def _ended(self, role: Role, what: Any) -> None:
        """Whoever is answered that it is closed, and was not refused before, is promised something."""
        if isinstance(what, commands.Connection.Close | commands.Channel.Close):
            role.is_refused = True
        elif isinstance(what, commands.Connection.CloseOk | commands.Channel.CloseOk) and not role.is_refused:
            role.is_refused = True
            role.all_told()

    def read(self, most: int) -> None:
        link = self.link
        for number, what in link.read(most):
            if number:
                self._told(number, what)
            else:
                self._told_itself(what)
            if not self.is_connected:
                return
        if link.connection.closed:
            self.world.log(f"{self.name} is closed")
            self.lost()

    def _told(self, number: int, what: Any) -> None:
        role = self._by_number.get(number)
        if role is None:
            known = isinstance(what, commands.Channel.CloseOk) and number in self._crossed
            self.world.ledger.check(
                known or self.is_leaving, f"{self.name} is told on channel {number}, which it does not have: {what}"
            )
            self._crossed.discard(number)
        elif isinstance(what, commands.Channel.CloseOk):
            self._forget(role)
        elif isinstance(what, commands.Channel.Close):
            self.world.log(f"{role.who} is closed: {what.reply_code} {what.reply_text}")
            may = what.reply_code in role.may_end and "delivery tag" not in what.reply_text
            self.world.ledger.check(may, f"{role.who} is told {what.reply_code} {what.reply_text}")
            role.say(commands.Channel.CloseOk())
            if role.is_closing:
                self._crossed.add(number)
            self._forget(role)
        else:
            role.heard(what)

    def _forget(self, role: Role) -> None:
        del self._by_number[role.number]
        role.number = 0
        role.gone()

    def _told_itself(self, what: Any) -> None:
        link = self.link
        match what:
            case commands.Connection.Start():
                link.say(0, commands.Connection.StartOk({"capabilities": CAPABILITIES}, "PLAIN", "\0guest\0guest", "en_US"))
            case commands.Connection.Tune():
                tuned = commands.Connection.TuneOk(2_047, link.frame_max, self._heartbeat_s)
                link.say(0, tuned, commands.Connection.Open("/"))
            case commands.Connection.OpenOk():
                self.is_ready = True
            case commands.Connection.Blocked() | commands.Connection.Unblocked():
                told = isinstance(what, commands.Connection.Blocked)
                self.world.ledger.check(told is not self.is_blocked, f"{self.name} is told {what} twice")
                self.is_blocked = told
            case commands.Connection.CloseOk():
                self.world.ledger.check(self.is_leaving, f"{self.name} is told CloseOk")
                link.connection.hang_up()
                self.lost()
            case commands.Connection.Close():
                self.world.ledger.check(what.reply_code == FORCED, f"{self.name} is told {what.reply_code} {what.reply_text}")
                link.say(0, commands.Connection.CloseOk())
            case heartbeat.Heartbeat():
                pass
            case _:
                raise AssertionError(what)
