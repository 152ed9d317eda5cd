"""Do a client and a worker go on undisturbed while others say what nobody should?"""

import random

import pytest
import zmq

from tests.zeromq.majordomo import Asker, Worker, serving_mdp
from tests.zeromq.support import Plain, until

HEADERS = [b"MDPC01", b"MDPW01", b"MDPC02", b"MDPW02", b"MDPW03", b""]
WORDS = [
    b"",
    b"\1",
    b"\2",
    b"\3",
    b"\4",
    b"\5",
    b"\6",
    b"echo",
    b"fuzz",
    b"mmi.service",
    b"1",
    b"\xff\0",
    b"x" * 300,
    b"{",
    b"\x93\1\1\1",
]


def nonsense(chance):
    """Return a message that begins well, mostly, and goes on anyhow."""
    frames = [chance.choice(HEADERS)] + [chance.choice(WORDS) for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 4, 5, 9]))]
    return [b"", *frames] if chance.random() < 0.7 else frames


def nearly(chance):
    """Return what a worker or client would say, or all but."""
    version = chance.choice([1, 2])
    head = [b"", b"MDPW01"] if version == 1 else [b"MDPW02"]
    client = [b"", b"MDPC01"] if version == 1 else [b"MDPC02", b"\1"]
    frames = chance.choice(
        [
            [*head, b"\1", b"fuzz"],
            [*head, b"\3", b"1", b"", b"x"],
            [*head, b"\4"],
            [*client, b"fuzz", b"x"],
            [*client, b"mmi.service", b"fuzz"],
        ]
    )
    if chance.random() < 0.3:
        frames.insert(chance.randrange(len(frames)), chance.choice(WORDS))
    return frames


@pytest.mark.parametrize("seed", range(4))
async def test_others_notice_nothing_of_nonsense(context, seed):
    chance = random.Random(seed)
    async with serving_mdp(max_message_bytes=1000) as running:
        address = running.address("ROUTER")
        client, worker = Asker(context, address), Worker(context, address, 2)
        await worker.ready()
        for turn in range(30):
            strangers = [Plain(context, zmq.DEALER, address) for _ in range(3)]
            for stranger in strangers:
                for _ in range(12):
                    await stranger.send(*(nearly(chance) if chance.random() < 0.5 else nonsense(chance)))
            await client.ask(b"good", b"%d" % turn)
            await client.ask(b"echo", b"%d" % turn)
            while True:  # what strangers ask of this service is answered, too
                to, body = await worker.request()
                await worker.reply(to, *body)
                if body == [b"%d" % turn]:
                    break
            assert await client.answer() == [b"echo", b"%d" % turn]
            for stranger in strangers:
                stranger.close()
        vhost = running.broker.engine.vhosts["/"]
        await until(lambda: all(not queue.consumers for name, queue in vhost.queues.items() if name == "mdp.fuzz"))
        assert running.count("violations") > 100
        assert len(vhost.queues) <= 12
        fuzzed = Worker(context, address)
        await fuzzed.ready(b"good")
        for turn in range(30):  # nothing that waited all the time was lost
            to, body = await fuzzed.request()
            assert body == [b"%d" % turn]
            await fuzzed.reply(to, b"done")
            assert await client.answer() == [b"good", b"done"]
