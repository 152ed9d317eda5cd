"""Can a worker answer for another, or a stranger for a worker?"""

import zmq

from gateway.api import Message, Properties, QueueSpec, decode_properties, encode_properties
from gateway_zeromq.mdp.translate import Origin, reply_key, word
from tests.zeromq.majordomo import Asker, Worker, serving_mdp
from tests.zeromq.support import ANY, Client, Plain, serving, until
from tests.zeromq.test_rep import request_in

REP = {"name": "rep", "socket": "REP", "bind": ANY, "exchange": "", "routing_key": "work"}
DEALER = {"name": "ask", "socket": "DEALER", "bind": ANY, "queue": "work"}


def near(number):
    """Return numbers that one could think of, who knows one."""
    value = int.from_bytes(number, "big")
    return [(value + step).to_bytes(len(number), "big") for step in (-2, -1, 1, 2)]


async def test_who_knows_the_number_of_one_request_of_a_dealer_endpoint_can_not_answer_others(context):
    async with serving({**DEALER, "window": 100}) as running:
        honest = Plain(context, zmq.REP, running.address("DEALER"))
        forger = Plain(context, zmq.DEALER, running.address("DEALER"))
        await until(lambda: running.queue("work").consumers)
        route = running.channel.route("", "work")
        published, got = 0, None
        while got is None:  # until both are asked
            published += 1
            running.channel.publish(route, Message(route.address, b"x", True))
            got = await forger.receive(0.02)
        assert await honest.receive() == b"x"
        number = got[0]
        for guess in near(number):
            await forger.send(guess, b"", b"forged")
        await until(lambda: running.count("dropped.late reply") == 4)
        assert running.queue("work").count == published


async def test_a_reply_is_taken_once_by_the_one_who_has_the_number(context):
    async with serving(DEALER) as running:
        worker = Plain(context, zmq.DEALER, running.address("DEALER"))
        route = running.channel.route("", "work")
        running.channel.publish(route, Message(route.address, b"x", True))
        number, _, _ = await worker.receive()
        for _ in range(3):
            await worker.send(number, b"", b"done")
        await until(lambda: running.count("dropped.late reply") == 2)
        assert running.queue("work").count == 0


async def test_who_knows_what_one_client_is_to_be_answered_by_can_not_answer_another(context):
    async with serving(REP) as running:
        await running.call(running.channel.declare_queue(QueueSpec("work")))
        first, second = (Plain(context, zmq.REQ, running.address("REP")) for _ in range(2))
        await first.send(b"first")
        known = decode_properties((await request_in(running)).wire)
        await second.send(b"second")
        asked = decode_properties((await request_in(running)).wire)
        for guess in near(bytes.fromhex(known.correlation_id)):
            await _reply(running, asked.reply_to, guess.hex(), b"forged")
        await until(lambda: running.count("dropped.late reply") == 4)
        await _reply(running, asked.reply_to, asked.correlation_id, b"true")
        assert await second.receive() == b"true"
        assert asked.correlation_id not in [guess.hex() for guess in near(bytes.fromhex(known.correlation_id))]


async def _reply(running, queue, number, body):
    route = running.channel.route("", queue)
    wire = encode_properties(Properties(correlation_id=number))
    await running.call(running.channel.publish(route, Message(route.address, body, False, "common", wire)))


# -- Majordomo


async def test_who_may_publish_to_the_topic_exchange_can_not_answer_a_client_of_another_protocol_or_guess_an_unnamed_one(context):
    async with serving_mdp() as running:
        asker = Asker(context, running.address("ROUTER"), 2)
        await asker.ask(b"echo", b"question")
        worker = Worker(context, running.address("ROUTER"), 2)
        await worker.ready()
        to, _ = await worker.request()
        named = Client(context, running.address("ROUTER"), IDENTITY=b"named")
        await named.hello()
        for client in (b"named", b"\0\0\0\0\1", *(b"\0" + bytes(2) + bytes((high, low)) for high in (0, 1) for low in range(3))):
            for how in ("1e", "2"):
                forged = Origin(word("services"), "no-boot", client, int(how[0]), how.endswith("e"), "echo")
                key = reply_key(forged)
                await named.say(3, 0, "amq.topic", key, {"delivery_mode": 1}, 2, body=b"forged")
        assert await named.ask(22, "t") == [23, "t"], "and nothing before it"
        await until(lambda: running.count("mdp_unclaimed") == 16)
        await worker.reply(to, b"true")
        assert await asker.answer() == [b"\3", b"echo", b"true"]
        assert await asker.receive(0.05) is None


async def test_a_worker_can_not_answer_a_request_that_another_one_has(context):
    async with serving_mdp() as running:
        honest, forger = (Worker(context, running.address("ROUTER"), 2) for _ in range(2))
        await honest.ready()
        asker = Asker(context, running.address("ROUTER"), 2)
        await asker.ask(b"echo", b"question")
        to, _ = await honest.request()
        await forger.ready()
        await forger.reply(to, b"forged")
        assert await forger.disconnected()
        await honest.reply(to, b"true")
        assert await asker.answer() == [b"\3", b"echo", b"true"]
        assert await asker.receive(0.05) is None
