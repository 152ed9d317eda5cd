"""A reply address is published to like the name of a queue, and leads to the exchange that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import AccessRefused, Binding, BindingOptions, Message, Principal, QueueSpec
from gateway.model.names import parse_reply_address, reply_address
from tests.runtime.support import HandJournal, running

NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@given(NAMES, NAMES)
def test_a_reply_address_names_exchange_and_key_whatever_is_in_them(exchange: str, key: str) -> None:
    assert parse_reply_address(reply_address(exchange, key)) == (exchange, key)


@pytest.mark.parametrize("text", ["", "queue", "/exchanges/", "/exchanges/x", "/exchanges/x/a/b", "exchanges/x/a"])
def test_other_names_are_no_reply_addresses(text: str) -> None:
    assert parse_reply_address(text) is None


def test_a_plain_topic_stays_readable() -> None:
    assert reply_address("amq.topic", "plant.3.answers") == "/exchanges/amq.topic/plant.3.answers"


async def test_an_answer_on_the_default_exchange_reaches_the_topic() -> None:
    async with running(HandJournal(automatic=True)) as broker:
        channel = broker.engine.vhost("/")
        assert channel.route("amq.topic", "a") is channel.route("amq.topic", "a")
        gateway = broker.gateway("test", lambda _: None, broker.log)
        opened = gateway.open_channel(Principal("somebody"))
        await opened.outcome(opened.declare_queue(QueueSpec("answers")))
        await opened.outcome(opened.bind(Binding("amq.topic", "answers", "plant.*.answers")))
        await opened.send("", reply_address("amq.topic", "plant.3.answers"), b"42")
        found = await opened.outcome(opened.get("answers"))
        assert (found.result.message.exchange, found.result.message.routing_key) == ("amq.topic", "plant.3.answers")


async def test_who_may_not_write_to_the_exchange_may_not_answer_there() -> None:
    async with running(HandJournal(automatic=True)) as broker:
        gateway = broker.gateway("test", lambda _: None, broker.log)
        opened = gateway.open_channel(Principal("somebody", "/", lambda action, resource, key: resource != "amq.topic"))
        with pytest.raises(AccessRefused):
            opened.route("", reply_address("amq.topic", "a"))


async def test_what_a_publisher_sends_spares_its_own_queue_where_the_binding_says_so() -> None:
    async with running(HandJournal(automatic=True)) as broker:
        gateway = broker.gateway("test", lambda _: None, broker.log)
        opened = gateway.open_channel(Principal("somebody"))
        for name, no_local in (("mine", True), ("mine too", False), ("another's", True)):
            await opened.outcome(opened.declare_queue(QueueSpec(name)))
            await opened.outcome(opened.bind(Binding("amq.topic", name, "k", options=BindingOptions(no_local=no_local))))
        mine = opened.route("amq.topic", "k", local_to="mine")
        await opened.outcome(opened.publish(mine, Message(mine.address, b"x", True)))
        infos = {name: opened.queue_info(name) for name in ("mine", "mine too", "another's")}
        assert {name: info.messages for name, info in infos.items() if info} == {"mine": 0, "mine too": 1, "another's": 1}


async def test_a_reply_address_has_no_more_words_than_any_key() -> None:
    async with running(HandJournal(automatic=True)) as broker:
        opened = broker.gateway("test", lambda _: None, broker.log).open_channel(Principal("somebody"))
        assert opened.route("", "/exchanges/amq.topic/" + "a%2E" * 255 + "a").address.routing_key.count(".") == 255
        with pytest.raises(AccessRefused, match="256 words"):
            opened.route("", "/exchanges/amq.topic/" + "a%2E" * 256 + "a")
