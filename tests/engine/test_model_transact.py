"""Do transactions, and messages with several keys, what the naive broker does, beside everything else?"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from gateway.errors import MessageRefused
from gateway.model.declare import Overflow
from gateway.model.message import Message
from tests.engine.naive import Item, is_durable
from tests.engine.test_model import QUICK, EngineMachine, SmallWindowMachine, picks, sizes


class Transacting:
    """Mixed into a machine: transactions to some queues that settle deliveries of others."""

    @rule(
        aims=st.lists(st.lists(picks, min_size=1, max_size=3), max_size=4),
        pick=picks,
        hows=st.lists(st.sampled_from(["ack", "requeue", "reject"]), max_size=3),
        persistent=st.sampled_from([True, True, False]),
        size=sizes,
    )
    def transact(self, aims, pick, hows, persistent, size):
        """Each aim is a key and further keys; queues that end when they are full have a rule of their own."""
        sent = [list(dict.fromkeys(self._name(which) for which in aim)) for aim in aims]
        ending = {name for name, queue in self.naive.queues.items() if queue.spec.overflow is Overflow.END_QUEUE}
        sent = [names for names in sent if not ending.intersection(names)]
        reached = {name for names in sent for name in names}
        settled = []
        for how in hows:
            able = [at for at, (_, _, taker) in enumerate(self.deliveries) if taker.queue not in reached]
            if able:
                settled.append((*self.deliveries.pop(able[pick % len(able)]), how))
        publishes, refused, nowhere = self._expect(sent, persistent, size)
        if refused:
            answer = self.engine.transact(publishes, [(entry, how) for entry, _, _, how in settled])
            assert isinstance(answer, MessageRefused)
            self.deliveries += [(entry, item, taker) for entry, item, taker, _ in settled]
            return
        for how in ("ack", "requeue", "reject"):
            for entry, item, taker, wanted in settled:
                if wanted != how:
                    continue
                if how == "requeue":
                    self.put_back(entry, item, taker)
                else:
                    self.take_out(entry, item, taker, automatically=False)
        self.taps = []
        assert self.engine.transact(publishes, [(entry, how) for entry, _, _, how in settled]) == nowhere
        self.taps = None

    def _expect(self, sent, persistent, size):
        """Put into the naive queues what is sent, unless one refuses; return it, whether one does, and what reaches none."""
        added, nowhere, publishes, refused = [], [], [], False
        for index, (first, *also) in enumerate(sent):
            self.bodies += 1
            body = b"%0*d" % (size, self.bodies)
            route = self.engine.vhost("/").route("", first, also=tuple(also))
            publishes.append((route, Message(route.address, body, persistent)))
            queues = [self.naive.queues[name] for name in (first, *also) if name in self.naive.queues]
            if not queues:
                nowhere.append(index)
            queues = [queue for queue in queues if persistent or queue.spec.keep_transient]
            if any(queue.refuses(body) for queue in queues):
                refused = True
            for queue in queues:
                item = Item(body, persistent and is_durable(queue.spec))
                queue.items.append(item)
                added.append((queue, item))
        for queue, item in added if refused else ():
            queue.items.remove(item)
        return publishes, refused, nowhere


class TransactMachine(Transacting, EngineMachine):
    """Everything and transactions."""


class SmallWindowTransactMachine(Transacting, SmallWindowMachine):
    """The same with most messages on disk."""


TestTransactions = TransactMachine.TestCase
TestTransactions.settings = settings(QUICK, max_examples=40)
TestTransactionsWithBacklogs = SmallWindowTransactMachine.TestCase
TestTransactionsWithBacklogs.settings = settings(QUICK, max_examples=25)
