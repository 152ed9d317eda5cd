"""What is answered, and to whom no more."""

from __future__ import annotations

from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack
from gateway_mqtt.outbound import MOST_UNREAD_REPLIES_BYTES, Replies
from tests.mqtt.support import mqtt_broker


class Client:
    """A gateway, a log and a connection to a client that may be reading."""

    closing = is_congested = False
    peer = "somewhere"
    aborted = None

    def __init__(self):
        self.out = []
        self.touched = 0
        self.counts = []
        self.log = self

    def touch(self):
        self.touched += 1

    def count(self, name, **_):
        self.counts.append(name)

    def warning(self, event, **_):
        self.event = event

    def abort(self, reason):
        self.aborted = reason
        self.closing = True


def test_what_a_turn_answers_goes_out_together_and_nothing_follows_the_last_word():
    client = Client()
    replies = Replies(client, client, "c")
    replies.reply(b"a")
    replies.reply(b"b")
    assert client.touched == 1
    replies.reply_last(b"goodbye")
    replies.reply(b"more")
    assert client.out == [b"a", b"b", b"goodbye"]


def test_who_asks_and_never_reads_is_cut_off_once():
    client = Client()
    replies = Replies(client, client, "c")
    replies.reply(b"x" * MOST_UNREAD_REPLIES_BYTES)
    client.is_congested = True
    for _ in range(2):
        replies.congested()
        replies.reply(b"x" * MOST_UNREAD_REPLIES_BYTES)
        assert client.aborted is None
        replies.decongested()
    replies.reply(b"x" * MOST_UNREAD_REPLIES_BYTES)
    for _ in range(2):
        replies.reply(b"x")
    assert client.aborted is not None
    assert client.counts == ["slow_clients"]


async def test_acknowledgements_of_a_client_that_was_sent_nothing_are_judged_like_any():
    async with mqtt_broker() as bench:
        client = await bench.client("c")
        await client.send(Ack(PUBACK, 7), Ack(PUBCOMP, 8), Ack(PUBREC, 9))
        assert await client.next() == Ack(PUBREL, 9)
        await client.ping()
        await client.send(Ack(PUBACK, 0))
        assert await client.next() is None
        assert bench.logged("protocol violation")
