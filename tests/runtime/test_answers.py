"""A task learns each outcome once."""

from __future__ import annotations

import pytest
import trio

from gateway.api.frontend import Principal
from gateway.errors import NotFound
from gateway.model.declare import QueueSpec
from gateway.runtime.answers import Answers
from tests.runtime.support import HandJournal, Log, running


def open_channel(broker):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"))


async def test_an_outcome_that_was_told_is_no_success_when_it_is_asked_for_again(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        refused = channel.delete_queue("missing")
        stored = channel.declare_queue(QueueSpec("q"))
        with pytest.raises(NotFound):
            await channel.outcome(refused)
        assert (await channel.outcome(stored)).result.name == "q"
        for number in (refused, stored):
            with pytest.raises(RuntimeError, match="told already"):
                await channel.outcome(number)


async def test_two_tasks_that_ask_for_one_number_are_not_both_answered(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        number = channel.declare_queue(QueueSpec("q"))
        answers = []

        async def ask():
            try:
                answers.append((await channel.outcome(number)).result.name)
            except RuntimeError:
                answers.append("told already")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert sorted(answers) == ["q", "told already"]


async def test_who_was_cancelled_while_it_waited_may_ask_again(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        channel = open_channel(broker)
        number = channel.declare_queue(QueueSpec("q"))
        with trio.move_on_after(1):
            await channel.outcome(number)
        journal.finish()
        assert (await channel.outcome(number)).result.name == "q"


async def test_a_number_that_was_never_given_is_an_error_and_no_endless_wait(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        for number in (0, 1, -1):
            with pytest.raises(RuntimeError, match="never submitted"):
                await channel.outcome(number)


async def test_what_was_told_takes_little_memory(autojump_clock):
    answers = Answers()
    answers.on_outcomes(100_000, [])
    for number in range(1, 100_001):
        await answers.outcome(number)
    assert len(answers._told._bits) < 10_000
    for number in (1, 50_000, 100_000):
        with pytest.raises(RuntimeError):
            await answers.outcome(number)
