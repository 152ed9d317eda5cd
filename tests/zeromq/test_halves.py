"""If a peer goes while a message of several frames is being sent to it, is any other message lost, or glued to what is left?"""

import select
from types import SimpleNamespace
from typing import ClassVar

import pytest
import trio
import zmq

from gateway.api import Message
from gateway_zeromq.endpoints import dealer, pub, push
from gateway_zeromq.endpoints.frames import split_raw
from gateway_zeromq.endpoints.majordomo import MajordomoSpeech
from gateway_zeromq.endpoints.speech import TgpSpeech
from tests.zeromq.support import ANY, Plain, let_libzmq_work, serving, until
from trio_zmq.pump import MORE, Pump


class Interruptible(Pump):
    """A pump during whose sends something may happen: ``between`` is called before the frame with this number."""

    made: ClassVar = []

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.made.append(self)
        self._send = self.send
        self.send = self._count

    def __class_getitem__(cls, _item):
        return cls

    frame, between = None, None

    def _count(self, frame, *rest):
        if self.frame == 0:
            self.frame = None
            self.between()
        elif self.frame is not None:
            self.frame -= 1
        return self._send(frame, *rest)

    def goes(self, peer, frame):
        """Let a peer go before this frame of the next message; the socket has been told when the frame is sent."""

        def close():
            peer.close()
            assert select.select([self.socket.FD], [], [], 30)[0]
            let_libzmq_work()

        self.frame, self.between = frame, close


# -- ROUTER: TGP, Majordomo, REP


def write_tgp(send, name, peer):
    return TgpSpeech.write(None, send, name, peer)


def write_majordomo(send, name, peer):
    return MajordomoSpeech.write(None, send, name, peer)


def write_reply(send, name, peer):
    """As REP endpoints do."""
    for frames in peer.out:
        Pump.send_frames(SimpleNamespace(send=send), [name, *([b""] if peer.enveloped else []), *frames])
    return len(peer.out)


async def router_of(context, address, *names):
    """Return a pump on a ROUTER, and peers that it knows."""
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.bind(address)
    pump = Interruptible(router, lambda: router.recv_multipart(zmq.NOBLOCK))
    peers = [Plain(context, zmq.DEALER, router.get_string(zmq.LAST_ENDPOINT), ROUTING_ID=name) for name in names]
    for peer in peers:
        await peer.send(b"here")
        with trio.fail_after(30):
            while not await pump.receive(1):
                pass
    return pump, *peers


@pytest.mark.parametrize("enveloped", [False, True])
@pytest.mark.parametrize(
    ("write", "message", "frames"),
    [
        (write_tgp, (b"header", None), [b"header"]),
        (write_tgp, (b"header", b"body"), [b"header", b"body"]),
        (write_majordomo, [b"1", b"2", b"3", b"4"], [b"1", b"2", b"3", b"4"]),
        (write_reply, [b"1", b"2", b"3", b"4"], [b"1", b"2", b"3", b"4"]),
    ],
)
async def test_a_peer_of_a_router_that_goes_takes_only_its_own_with_it(context, address, write, message, frames, enveloped):
    whole = [*([b""] if enveloped else []), *frames]
    for frame in range(1, len(whole) + 1):
        pump, goer, stayer = await router_of(context, f"{address}{frame}" if address[-1] != "*" else address, b"goer", b"stayer")
        pump.goes(goer, frame)
        assert write(pump.send, b"goer", SimpleNamespace(out=[message], enveloped=enveloped)) == 1, "there is nothing to be seen"
        assert pump.frame is None, "it went in the middle"
        assert write(pump.send, b"stayer", SimpleNamespace(out=[message, message], enveloped=enveloped)) == 2
        for _ in range(2):
            assert await stayer.receive() == (whole[0] if len(whole) == 1 else whole)
        with pytest.raises(zmq.ZMQError) as error:
            write(pump.send, b"goer", SimpleNamespace(out=[message], enveloped=enveloped))
        assert error.value.errno == zmq.EHOSTUNREACH
        pump.close()


async def test_a_router_that_is_left_in_the_middle_takes_the_next_message_for_the_rest(context, address):
    pump, goer, stayer = await router_of(context, address, b"goer", b"stayer")
    goer.close()
    pump.send(b"stayer", MORE)
    pump.send(b"1", MORE)
    write_tgp(pump.send, b"stayer", SimpleNamespace(out=[(b"2", None)], enveloped=False))
    write_tgp(pump.send, b"stayer", SimpleNamespace(out=[(b"3", None)], enveloped=False))
    assert [await stayer.receive() for _ in range(2)] == [[b"1", b"stayer", b"2"], b"3"]
    pump.close()


# -- the endpoints that send to whoever is there


@pytest.fixture
def pumps(monkeypatch):
    """The pumps of the endpoints."""
    Interruptible.made = []
    for module in (dealer, pub, push):
        monkeypatch.setattr(module, "Pump", Interruptible)
    return Interruptible.made


async def publish(running, exchange, key, *bodies):
    route = running.channel.route(exchange, key)
    for body in bodies:
        await running.call(running.channel.publish(route, Message(route.address, body, True)))


@pytest.mark.parametrize(("frames", "frame"), [("body", 1), ("body", 2), ("key,body", 1), ("key,body", 2), ("key,body", 3)])
async def test_a_worker_that_goes_while_it_is_asked_costs_no_other_its_request(context, pumps, frames, frame):
    async with serving({"socket": "DEALER", "bind": ANY, "queue": "work", "frames": frames}) as running:
        workers = [Plain(context, zmq.DEALER, running.address("DEALER")) for _ in range(2)]
        seen = set()
        while len(seen) < 2:  # both are there
            await publish(running, "", "work", b"first")
            asked, _, (number, empty, *_) = await who_was_asked(workers)
            await asked.send(number, empty, b"done")
            seen.add(asked)
        await until(lambda: running.queue("work").count == 0)
        await publish(running, "", "work", b"held")
        stayer, goer, _ = await who_was_asked(workers)
        pumps[0].goes(goer, frame)
        await publish(running, "", "work", b"half", b"next")
        asked = [await stayer.receive() for _ in range(2)]
        assert [request[-1] for request in asked] == [b"half", b"next"]
        assert all(len(request) == 2 + len(frames.split(",")) for request in asked)
        assert running.count("requeued.no worker") == 0, "what the other has is its own"
        assert await stayer.receive(0.1) is None


async def who_was_asked(workers):
    """Return the worker that has a request, the other one, and the request."""
    with trio.fail_after(30):
        while True:
            for number, worker in enumerate(workers):
                if (request := await worker.receive(0.01)) is not None:
                    return worker, workers[1 - number], request


@pytest.mark.parametrize(
    ("frames", "frame"), [("key,body", 1), ("key,headers,body", 1), ("key,headers,body", 2), ("raw", 1), ("raw", 2), ("raw", 3)]
)
async def test_a_push_worker_that_goes_while_it_is_sent_to_takes_no_other_message_with_it(context, pumps, frames, frame):
    async with serving({"socket": "PUSH", "bind": ANY, "queue": "jobs", "frames": frames}) as running:
        goer = Plain(context, zmq.PULL, running.address("PUSH"))
        await put_whole(running, b"first", frames)
        await goer.receive()
        pumps[0].goes(goer, frame)
        for body in (b"half", b"next"):
            await put_whole(running, body, frames)
        await until(lambda: pumps[0].frame is None)
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        got = [await worker.receive()]
        if got == [laid_out(b"half", frames)]:  # it is its peer's, and may be lost with it
            got.append(await worker.receive())
        assert got[-1] == laid_out(b"next", frames)
        assert await worker.receive(0.1) is None
        await until(lambda: running.queue("jobs").count == 0)


def laid_out(body, frames):
    return {
        "key,body": [b"jobs", body],
        "key,headers,body": [b"jobs", b"\x80", body],
        "raw": [b"1", b"2", b"3", body],
    }[frames]


async def put_whole(running, body, frames):
    route = running.channel.route("", "jobs")
    _, body, wire = split_raw(laid_out(body, frames)) if frames == "raw" else (None, body, b"")
    await running.call(running.channel.publish(route, Message(route.address, body, True, "common", wire)))


@pytest.mark.parametrize("slow_subscriber", ["drop", "hold"])
@pytest.mark.parametrize(("frames", "frame"), [("key,body", 1), ("key,headers,body", 1), ("key,headers,body", 2)])
async def test_a_subscriber_that_goes_while_it_is_sent_to_takes_nothing_from_the_others(
    context, pumps, frames, frame, slow_subscriber
):
    pub = {"socket": "PUB", "bind": ANY, "exchange": "amq.topic", "frames": frames, "slow_subscriber": slow_subscriber}
    async with serving(pub) as running:
        goer, stayer = (Plain(context, zmq.SUB, running.address("PUB"), SUBSCRIBE=b"") for _ in range(2))
        for subscriber in (goer, stayer):
            with trio.fail_after(30):
                while await subscriber.receive(0.02) is None:
                    await publish(running, "amq.topic", "jobs", b"early")
        while await stayer.receive(0.1) is not None:
            pass
        pumps[0].goes(goer, frame)
        await publish(running, "amq.topic", "jobs", b"half", b"next")
        assert [await stayer.receive() for _ in range(2)] == [laid_out(body, frames) for body in (b"half", b"next")]
        assert pumps[0].frame is None
