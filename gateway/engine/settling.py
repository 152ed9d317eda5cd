"""How does a message leave its queue, or come back to it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.engine.queues.burial import Dead
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.dead_letter import Reason
from gateway.engine.queues.delivery import UNWRITTEN, Entry, in_order
from gateway.engine.queues.queue import Queue
from gateway.engine.state import State
from gateway.errors import NotHeld
from gateway.model.message import Message
from gateway.model.records import Reference


class Settling(State):
    """Acknowledgements, rejections, returns."""

    def ack(self, entry: Entry) -> None:
        """Settle a delivery on a consumer's word; what is wholly settled in the open batch is never written.

        Raises:
            NotHeld: its consumer does not hold it.
        """
        consumer = entry.consumer
        if consumer is None:
            raise NotHeld
        try:
            consumer.held.remove(entry)
        except KeyError:
            raise NotHeld from None
        if entry.settled:
            self._late(entry, consumer)
            return
        self.settle(entry)
        if not consumer.manual_credit:
            left = consumer.credit_left = consumer.credit_left + 1
            if left == 1 and consumer.able:
                consumer.queue.consumer_able(consumer)

    def ack_many(self, entries: Iterable[Entry]) -> None:
        """Settle deliveries on a consumer's word, as `ack` does one by one, but credit is given for all of a run at once.

        Raises:
            NotHeld: the consumer of some does not hold them; the others are settled.
        """
        problem: NotHeld | None = None
        consumer: Consumer | None = None
        run: list[Entry] = []
        for entry in entries:
            holder = entry.consumer
            if holder is None or entry.settled or entry not in holder.held:
                try:
                    self.ack(entry)  # late, or of a queue that is gone, or unknown
                except NotHeld as error:
                    problem = error
                continue
            if holder is not consumer:
                if consumer is not None:
                    self._ack_run(consumer, run)
                    run = []
                consumer = holder
            holder.held.remove(entry)
            run.append(entry)
        if consumer is not None:
            self._ack_run(consumer, run)
        if problem is not None:
            raise problem

    def _ack_run(self, consumer: Consumer, run: list[Entry]) -> None:
        """Settle what one consumer held, all of one queue, and is out of its hands."""
        queue = consumer.queue
        settled = self.batch.settled
        body_bytes = 0
        for entry in run:
            entry.settled = True
            message = entry.message
            body_bytes += len(message.body)
            if entry.segment is not None:
                settled.append(entry)
            elif entry.slot == UNWRITTEN:
                message.live -= 1
                if message.live == 0:
                    message.first = None
                    message.more = None
                    self.batch.unsettled -= 1
        queue.count -= len(run)
        queue.body_bytes -= body_bytes
        if not consumer.manual_credit:
            consumer.credit(len(run))

    def settle(self, entry: Entry) -> None:
        """Take an entry out of its queue for good."""
        if entry.settled:
            return
        entry.settled = True
        message = entry.message
        queue = entry.queue
        queue.count -= 1
        queue.body_bytes -= len(message.body)
        if entry.segment is not None:
            self.batch.settled.append(entry)
        elif entry.slot == UNWRITTEN:
            message.live -= 1
            if message.live == 0:
                message.first = None
                message.more = None
                self.batch.unsettled -= 1

    def settle_automatically(self, entry: Entry) -> None:
        """Take out an entry that nobody acknowledged: it is written first if it has to be (no elision)."""
        if entry.segment is None and entry.slot == UNWRITTEN:
            self.batch.deferred.append(entry)
            entry.queue.gone(entry)
        else:
            self.settle(entry)

    def discard(self, entry: Entry, *, told: bool = False) -> None:
        """Settle an entry that its queue counts no more. `told`: a record of its own takes its references from the disk."""
        if entry.settled:
            return
        entry.settled = True
        message = entry.message
        if entry.segment is not None:
            if not told:
                self.batch.settled.append(entry)
        elif entry.slot == UNWRITTEN:
            self.unwritten(message)

    def unwritten(self, message: Message) -> None:
        """A reference less of a message in the open batch has to be written."""
        message.live -= 1
        if message.live == 0:
            message.first = None
            message.more = None
            self.batch.unsettled -= 1

    def handed_over(self, entry: Entry) -> None:
        """Settle a delivery automatically: it went where no acknowledgement comes from. Raises as `ack`."""
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held:
            raise NotHeld
        consumer.held.discard(entry)
        if entry.settled:
            self._late(entry, consumer)
            return
        self.settle_automatically(entry)
        if not consumer.manual_credit:
            consumer.credit(1)

    def nack(self, entry: Entry, *, requeue: bool, delay_ms: int = 0) -> None:
        """Put a delivery back to its old place, or reject it, so that it is dead-lettered. Raises as `ack`.

        `delay_ms`: it is not delivered again before; the longer of this and of what the queue's retry says.
        """
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held:
            raise NotHeld
        consumer.held.discard(entry)
        if entry.settled:
            self._late(entry, consumer)
            return
        queue = entry.queue
        if requeue:
            self.come_back(entry, max(delay_ms, self.retry_ms(entry)))
        else:
            self.died(entry, Reason.REJECTED)
        if not consumer.manual_credit:
            consumer.credit(1)
        queue.pump()
        self.finish()

    def nack_many(self, entries: Iterable[Entry], *, requeue: bool) -> None:
        """Put deliveries back, or reject them, as `nack` does one by one; nobody is handed anything before all are back.

        Raises:
            NotHeld: the consumer of some does not hold them; the others are given back.
        """
        problem: NotHeld | None = None
        given: list[Entry] = []
        credit: dict[Consumer, int] = {}
        for entry in entries:
            consumer = entry.consumer
            if consumer is None or entry not in consumer.held:
                problem = NotHeld()
                continue
            consumer.held.discard(entry)
            if entry.settled:
                try:
                    self._late(entry, consumer)
                except NotHeld as error:
                    problem = error
                continue
            given.append(entry)
            credit[consumer] = credit.get(consumer, 0) + 1
        self._take_back(given, requeue=requeue)
        for consumer, amount in credit.items():
            if not consumer.manual_credit:
                consumer.credit(amount)
        for queue in dict.fromkeys(entry.queue for entry in given):
            queue.pump()
        self.finish()
        if problem is not None:
            raise problem

    def _take_back(self, entries: list[Entry], *, requeue: bool) -> None:
        """Take back what is out of its consumers' hands: backwards, so that each finds its place at the head; the caller pumps."""
        if not requeue:
            for entry in entries:
                self.died(entry, Reason.REJECTED)
            return
        entries.sort(key=in_order, reverse=True)
        worn_out = [entry for entry in entries if _is_worn_out(entry)]
        for entry in entries:
            if not _is_worn_out(entry):
                self.come_back(entry, self.retry_ms(entry))
        for entry in reversed(worn_out):  # these go on as dead letters, in order
            self.come_back(entry)

    def extend(self, entry: Entry, lease_ms: int) -> None:
        """Let a delivery's lease end so many ms from now. Nothing happens if its queue has no timeout. Raises as `ack`."""
        consumer = entry.consumer
        queue = entry.queue
        if consumer is None or entry not in consumer.held or (entry.settled and not queue.deleted):
            raise NotHeld
        if queue.leases is not None and not queue.deleted:
            queue.leases.extend(entry, lease_ms)

    def _late(self, entry: Entry, consumer: Consumer) -> None:
        """Give credit back for a delivery that was settled while it was held: its queue is gone, or its lease has ended."""
        queue = entry.queue
        if not queue.deleted:
            consumer.lapsed -= 1
        if not consumer.manual_credit:
            consumer.credit_left += 1
        if queue.deleted:
            return
        if consumer.able:
            queue.consumer_able(consumer)
        raise NotHeld("unknown delivery tag: its lease has ended")

    def retry_ms(self, entry: Entry) -> int:
        """Return how long an entry waits that came back, as its queue's retry says."""
        retry = entry.queue.terms.retry
        return retry.delay_ms(entry.count) if retry is not None else 0

    def come_back(self, entry: Entry, delay_ms: int = 0) -> None:
        """Take back a delivery that nobody settled: to its old place, unless it came back too often. The caller pumps.

        What a lost channel held comes back without delay, as it was not its fault, but counts as a return.
        """
        self.events.returned(entry)
        queue = entry.queue
        if _is_worn_out(entry):
            self.died(entry, Reason.DELIVERY_LIMIT)
        else:
            queue.requeue(entry, delay_ms)

    def _put_back(self, channel: object) -> None:
        """Put back all that a channel holds, in order. The caller finishes."""
        held = self.holdings.pop(channel, None)
        if not held:
            return
        entries = sorted(held, key=in_order, reverse=True)
        held.clear()
        queues: dict[Queue, None] = {}
        for entry in entries:
            if not entry.settled:
                self.come_back(entry)
                queues[entry.queue] = None
        for queue in queues:
            queue.pump()

    def died(self, entry: Entry, reason: Reason) -> None:
        """Let a queue give up an entry, which is neither ready nor held any more: it is dropped, or to be dead-lettered."""
        self.events.died(entry, reason.value)
        queue = entry.queue
        if queue.terms.dead_letter_exchange is None:
            self.events.dropped(queue.name, reason.value, 1)
            self.settle(entry)
        else:
            entry.consumer = None
            queue.gone(entry)
            self.dead.append(Dead(queue, entry.message, reason, entry))

    def withdraw(self, is_written: Callable[[Reference], bool]) -> list[Entry]:
        """Take out what is to be journaled and is not on disk: its publishers were told no. Return the entries.

        What was handed to anybody stays, and so does what the engine itself published: its source is settled in the same batch.

        Args:
            is_written: says of a reference with a segment whether its commit is on disk.

        Cost: the queues, and what they took since the last commit.
        """
        taken: list[Entry] = []
        for lane in list(self.queues_by_id.values()):
            taken += lane.withdraw(lambda entry: entry.count == 0 and entry.message not in self.ours, is_written)
        for entry in taken:
            self.settle(entry)
        self.special.withdraw()
        for queue in dict.fromkeys(entry.queue for entry in taken):
            queue.pump()
        self.finish()
        return taken


def _is_worn_out(entry: Entry) -> bool:
    """Say whether its next return is one too many."""
    limit = entry.queue.terms.delivery_limit
    retry = entry.queue.terms.retry
    return 0 <= limit < entry.count or (retry is not None and 0 < retry.attempts < entry.count)
