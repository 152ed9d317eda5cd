"""Majordomo's clients and workers as plain sockets, written from the RFCs."""

import zmq

from tests.zeromq.support import Plain, serving

MDP = {"name": "services", "socket": "ROUTER", "bind": "tcp://127.0.0.1:0", "protocols": ["tgp/1", "mdp/0.1", "mdp/0.2"]}

READY, REQUEST, REPLY, HEARTBEAT, DISCONNECT = b"\1", b"\2", b"\3", b"\4", b"\5"
PARTIAL2, FINAL2, HEARTBEAT2, DISCONNECT2 = b"\3", b"\4", b"\5", b"\6"


def majordomo(**settings):
    return {**MDP, **settings}


def serving_mdp(**settings):
    return serving(majordomo(**settings))


class Worker(Plain):
    """A worker of either version; it hears heartbeats, and keeps them out of the way."""

    def __init__(self, context, address, version=1, **options):
        super().__init__(context, zmq.DEALER, address, **options)
        self.version = version
        self.heartbeats = 0

    def head(self):
        return [b"", b"MDPW01"] if self.version == 1 else [b"MDPW02"]

    async def say(self, *frames):
        await self.send(*self.head(), *frames)

    async def ready(self, service=b"echo"):
        await self.say(READY, service)

    async def beat(self):
        await self.say(HEARTBEAT if self.version == 1 else HEARTBEAT2)

    async def hear(self, seconds=30):
        """Return the next command that is no heartbeat, without its header; None: nothing came."""
        while True:
            frames = await self.receive(seconds)
            if frames is None:
                return None
            head = self.head()
            assert frames[: len(head)] == head, frames
            rest = frames[len(head) :]
            if rest != [HEARTBEAT if self.version == 1 else HEARTBEAT2]:
                return rest
            self.heartbeats += 1

    async def request(self, seconds=30):
        """Return address and body of the next request."""
        command, address, empty, *body = await self.hear(seconds)
        assert (command, empty) == (REQUEST, b"")
        return address, body

    async def reply(self, address, *body):
        await self.say(REPLY if self.version == 1 else FINAL2, address, b"", *body)

    async def partial(self, address, *body):
        await self.say(PARTIAL2, address, b"", *body)

    async def disconnected(self, seconds=30):
        return await self.hear(seconds) == [DISCONNECT if self.version == 1 else DISCONNECT2]


class Asker(Plain):
    """A client of either version on a DEALER, or one of 0.1 on a REQ socket."""

    def __init__(self, context, address, version=1, kind=zmq.DEALER, **options):
        super().__init__(context, kind, address, **options)
        self.version = version
        self.kind = kind

    async def ask(self, service, *body):
        if self.version == 2:
            await self.send(b"MDPC02", b"\1", service, *body)
        elif self.kind == zmq.REQ:
            await self.send(b"MDPC01", service, *body)
        else:
            await self.send(b"", b"MDPC01", service, *body)

    async def answer(self, seconds=30):
        """Return service and body of the next reply; for 0.2 what it is comes first."""
        frames = await self.receive(seconds)
        if frames is None:
            return None
        if self.version == 1 and self.kind != zmq.REQ:
            assert frames.pop(0) == b""
        assert frames.pop(0) == (b"MDPC01" if self.version == 1 else b"MDPC02")
        return frames

    async def call(self, service, *body, seconds=30):
        await self.ask(service, *body)
        return await self.answer(seconds)
