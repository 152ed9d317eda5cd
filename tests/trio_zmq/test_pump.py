"""Does the pump keep its rules? Each test of a rule also shows that it fails where the rule is broken."""

import select
import time

import pytest
import trio
import zmq
from trio.testing import wait_all_tasks_blocked

from trio_zmq.pump import POLLIN, POLLOUT, Oversized, Pump, rest_of_message, whole_messages


def let_libzmq_work():
    """Wait without letting trio's loop run."""
    time.sleep(0.03)


async def receive_for_ever(pump):
    while True:
        await pump.receive()


class Pair:
    """A pumped DEALER and a plain peer."""

    def __init__(self, context, address, kind=Pump, peer=True, **options):
        self.near = context.socket(zmq.DEALER)
        self.far = context.socket(zmq.DEALER)
        for socket in (self.near, self.far):
            for option, value in options.items():
                socket.setsockopt(getattr(zmq, option), value)
        self.near.bind(address)
        self.address = self.near.get_string(zmq.LAST_ENDPOINT)
        self.pump = kind(self.near, whole_messages(self.near))
        if peer:
            self.connect()

    def connect(self):
        self.far.connect(self.address)
        assert self.far.poll(30_000, zmq.POLLOUT)

    def make_near_readable(self, messages):
        """Send to the pump's socket, and wait until its descriptor says so, without trio's loop seeing it."""
        for message in messages:
            self.far.send(message)
        self.wait_for_descriptor()

    def wait_for_descriptor(self):
        assert select.select([self.pump._fd], [], [], 30)[0]
        let_libzmq_work()  # it looks at its commands at most every few million cycles when it sends

    @property
    def descriptor_is_readable(self):
        return bool(select.select([self.pump._fd], [], [], 0)[0])


async def settle(pair):
    """Connected for good: nothing more is under way on the pump's descriptor."""
    pair.far.send(b"hello")
    with trio.fail_after(30):
        got = []
        while not got:
            got = await pair.pump.receive()
    assert got == [b"hello"]
    assert pair.pump._take_up_to(1) == []


# -- rule c


class WithoutRecheck(Pump):
    def recheck(self):
        """Rule c broken."""


@pytest.mark.parametrize("kind", [Pump, WithoutRecheck])
async def test_rule_c_a_send_past_the_sleeper_does_not_swallow_its_message(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    got = []

    async def receive():
        got.extend(await pair.pump.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        pair.make_near_readable([b"x"])
        assert pair.pump.offer([b"past"])
        assert not pair.descriptor_is_readable, "the send has used up the edge, so the descriptor will never tell"
        await wait_all_tasks_blocked(0.02)
        assert got == ([] if kind is WithoutRecheck else [b"x"])
        nursery.cancel_scope.cancel()


class KeepsItForItself(Pump):
    def events(self):
        """Rule c broken: looks, and does not tell the others."""
        return int(self.socket.get(zmq.EVENTS))


@pytest.mark.parametrize("kind", [Pump, KeepsItForItself])
async def test_rule_c_a_reader_that_uses_up_the_edge_wakes_the_writer(context, address, kind):
    pair = Pair(context, address, kind, peer=False)
    woken = []

    async def write():
        await pair.pump.writable()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        pair.connect()
        pair.wait_for_descriptor()
        assert pair.pump._take_up_to(1) == []
        assert not pair.descriptor_is_readable
        assert pair.pump.socket.get(zmq.EVENTS) & POLLOUT
        nursery.start_soon(pair.pump.receive)
        await wait_all_tasks_blocked(0.02)
        assert bool(woken) is (kind is Pump)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [Pump, KeepsItForItself])
async def test_rule_c_a_writer_that_looks_wakes_the_reader(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    got = []

    async def receive():
        got.extend(await pair.pump.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        pair.make_near_readable([b"x"])
        assert pair.pump.events() & POLLIN
        assert not pair.descriptor_is_readable
        await wait_all_tasks_blocked(0.02)
        assert got == ([b"x"] if kind is Pump else [])
        nursery.cancel_scope.cancel()


class TellsReadersOnly(Pump):
    def recheck(self):
        """Rule c broken: who waits for room is not told."""
        if self._readers:
            super().recheck()


@pytest.mark.parametrize("kind", [Pump, WithoutRecheck, TellsReadersOnly])
@pytest.mark.parametrize("use", ["send", "receive"])
async def test_rule_c_whoever_uses_up_the_edge_of_a_writer_wakes_it(context, address, kind, use):
    pair = Pair(context, address, kind, peer=False)
    woken = []

    async def write():
        await pair.pump.writable()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        pair.connect()
        pair.make_near_readable([b"x"])
        if use == "send":
            assert pair.pump.offer([b"past"])
        else:
            assert await pair.pump.receive() == [b"x"]
        assert not pair.descriptor_is_readable
        await wait_all_tasks_blocked(0.02)
        assert bool(woken) is (kind is Pump)
        nursery.cancel_scope.cancel()


class SitsDownUnseeing(Pump):
    async def _wait(self):
        """Rule c broken: who finds nothing sits down beside the others, whatever the look has used up."""
        if self._seat is not None:
            await self._parked.park()
            return
        await super()._wait()


@pytest.mark.parametrize("kind", [Pump, SitsDownUnseeing])
async def test_rule_c_a_reader_that_finds_nothing_but_room_wakes_the_writer(context, address, kind):
    pair = Pair(context, address, kind, peer=False)
    woken = []

    async def write():
        await pair.pump.writable()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        pair.connect()
        pair.wait_for_descriptor()
        assert not pair.pump.drained, "it looks by receiving, before trio's loop does"
        with trio.move_on_after(0.02):
            assert await pair.pump.receive() == []
        assert not pair.descriptor_is_readable
        assert bool(woken) is (kind is Pump)
        nursery.cancel_scope.cancel()


# -- rule b


class WaitsUnasked(Pump):
    async def writable(self):
        """Rule b broken: waits for the descriptor though there is room."""
        await self._wait()


@pytest.mark.parametrize("kind", [Pump, WaitsUnasked])
async def test_rule_b_nobody_sleeps_while_there_is_room(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    assert not pair.descriptor_is_readable
    with trio.move_on_after(30 if kind is Pump else 0.05) as patience:
        await pair.pump.writable()
    assert patience.cancelled_caught is (kind is not Pump)


class SleepsUnasked(Pump):
    async def receive(self, limit=1):
        """Rule b broken: waits for the descriptor though there may be more."""
        await self._wait()
        return self._take_up_to(limit)


@pytest.mark.parametrize("kind", [Pump, SleepsUnasked])
async def test_rule_b_it_does_not_sleep_while_messages_are_left(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    pair.make_near_readable([b"1", b"2", b"3"])
    got = []
    with trio.move_on_after(30) as patience:
        while len(got) < 3:
            got += await pair.pump.receive(limit=1)
            if kind is not Pump:
                patience.deadline = trio.current_time() + 0.3
    assert got == ([b"1", b"2", b"3"] if kind is Pump else [b"1"])


# -- rule d


class WaitsForWritableDescriptor(Pump):
    looks = 0

    def events(self):
        self.looks += 1
        return super().events()

    async def _wait(self):
        """Rule d broken."""
        await trio.lowlevel.wait_writable(self._fd)


class Counting(Pump):
    looks = 0

    def events(self):
        self.looks += 1
        return super().events()


@pytest.mark.parametrize("kind", [Counting, WaitsForWritableDescriptor])
async def test_rule_d_waiting_for_room_sleeps_on_a_readable_descriptor(context, address, kind):
    pair = Pair(context, address, kind, peer=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.pump.writable)
        for _ in range(20 if kind is Counting else 3_000):
            await trio.sleep(0.01)
            if pair.pump.looks >= 5:
                break
        nursery.cancel_scope.cancel()
    assert (pair.pump.looks < 5) is (kind is Counting), "a descriptor that is always writable means a busy loop"


async def test_rule_d_room_to_send_is_noticed(context, address):
    pair = Pair(context, address, SNDHWM=1, RCVHWM=1, SNDBUF=4096, RCVBUF=4096)
    await settle(pair)
    full = 0
    while full < 5:
        full += 1
        while pair.pump.offer([b"x" * 50_000]):
            full = 0
        let_libzmq_work()  # its thread moves some on to the kernel
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.pump.writable)
        await wait_all_tasks_blocked(0.01)
        assert nursery.child_tasks, "it is full"
        while pair.far.poll(200):
            pair.far.recv()
        nursery.cancel_scope.deadline = trio.current_time() + 30
    assert not nursery.cancel_scope.cancelled_caught
    assert pair.pump.offer([b"x"])


# -- rule a


class EverybodySits(Pump):
    async def _wait(self):
        """Rule a broken."""
        await trio.lowlevel.wait_readable(self._fd)


@pytest.mark.parametrize("kind", [Pump, EverybodySits])
async def test_rule_a_a_reader_and_a_writer_may_wait_at_once(context, address, kind):
    pair = Pair(context, address, kind, peer=False)
    got, woken = [], []

    async def receive():
        while not got:
            got.extend(await pair.pump.receive())

    async def write():
        await pair.pump.writable()
        woken.append(True)

    async def both():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            pair.connect()
            pair.far.send(b"x")

    with trio.fail_after(30):
        if kind is EverybodySits:
            with pytest.raises(BaseExceptionGroup) as group:
                await both()
            assert group.group_contains(trio.BusyResourceError)
        else:
            await both()
            assert (got, woken) == ([b"x"], [True])


async def test_rule_a_when_the_sitter_is_cancelled_another_takes_the_seat(context, address):
    pair = Pair(context, address)
    await settle(pair)
    got = []

    async def receive():
        while not got:
            got.extend(await pair.pump.receive())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as inner:
                inner.start_soon(pair.pump.receive)
                await wait_all_tasks_blocked()
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                first.cancel()
        pair.far.send(b"x")
        with trio.fail_after(30):
            while not got:
                await trio.lowlevel.checkpoint()
    assert got == [b"x"]


# -- rule e


class LooksTooLate(Pump):
    async def receive(self, limit=1):
        """Rule e broken: takes, then looks whether it was cancelled."""
        batch = self._take_up_to(limit)
        await trio.lowlevel.checkpoint()
        return batch


@pytest.mark.parametrize("kind", [Pump, LooksTooLate])
async def test_rule_e_a_receive_that_is_cancelled_takes_nothing(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    pair.make_near_readable([b"x"])
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.pump.receive()
    assert scope.cancelled_caught
    assert bool(pair.near.poll(0)) is (kind is Pump), "the message is still there"


@pytest.mark.parametrize("kind", [Pump, LooksTooLate])
async def test_rule_e_what_was_taken_is_returned_though_cancelled_meanwhile(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    pair.make_near_readable([b"x"])
    take = pair.pump._take
    got = []
    with trio.CancelScope() as scope:

        def take_and_cancel():
            message = take()
            scope.cancel()
            return message

        pair.pump._take = take_and_cancel
        got += await pair.pump.receive(1)
    assert got == ([b"x"] if kind is Pump else [])


# -- rule f


class ClosesQuietly(Pump):
    def close(self, linger_ms=0):
        """Rule f broken: wakes nobody."""
        self._closed = True


@pytest.mark.parametrize("kind", [Pump, ClosesQuietly])
async def test_rule_f_closing_wakes_the_sleeper(context, address, kind):
    pair = Pair(context, address, kind, peer=False)
    ended = []

    async def receive():
        with pytest.raises(trio.ClosedResourceError):
            await receive_for_ever(pair.pump)
        ended.append("reader")

    async def write():
        with pytest.raises(trio.ClosedResourceError):
            await pair.pump.writable()
        ended.append("writer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(write)
        await wait_all_tasks_blocked(0.01)
        pair.pump.close()
        await wait_all_tasks_blocked(0.02)
        assert sorted(ended) == (["reader", "writer"] if kind is Pump else [])
        nursery.cancel_scope.cancel()
    assert pair.pump.closed
    pair.near.close()


class ClosesFirst(Pump):
    def close(self, linger_ms=0):
        """Rule f broken: whoever gets the descriptor's number next is woken, or nobody."""
        self._closed = True
        self.socket.close(linger_ms)
        trio.lowlevel.notify_closing(self._fd)


@pytest.mark.parametrize("kind", [Pump, ClosesFirst])
async def test_rule_f_it_wakes_before_it_closes_and_only_once(context, monkeypatch, kind):
    pair = Pair(context, "inproc://test", kind)
    notify, told = trio.lowlevel.notify_closing, []

    def telling(descriptor):
        told.append((descriptor, pair.near.closed))
        notify(descriptor)

    descriptor = pair.pump._fd
    monkeypatch.setattr(trio.lowlevel, "notify_closing", telling)
    pair.pump.close()
    pair.pump.close()
    assert (told == [(descriptor, False)]) is (kind is Pump)


async def test_a_closed_pump_refuses_and_closing_again_does_nothing(context):
    pair = Pair(context, "inproc://test")
    pair.pump.close()
    pair.pump.close()
    for call in (pair.pump.receive, pair.pump.writable):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    with pytest.raises(trio.ClosedResourceError):
        pair.pump.offer([b"x"])
    pair.pump.recheck()


async def test_a_terminated_context_ends_a_waiting_receive(context):
    pair = Pair(context, "inproc://test")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, context.term)
            with pytest.raises(trio.ClosedResourceError):
                await receive_for_ever(pair.pump)
            pair.pump.close()
            pair.far.close(0)


# -- batches and frames


async def test_a_batch_has_at_most_the_limit_and_keeps_the_order(context, address):
    pair = Pair(context, address)
    sent = [b"%d" % n for n in range(200)]
    for message in sent:
        pair.far.send(message)
    got, largest = [], 0
    with trio.fail_after(30):
        while len(got) < len(sent):
            batch = await pair.pump.receive(64)
            largest = max(largest, len(batch))
            got += batch
    assert got == sent
    assert largest <= 64


@pytest.mark.parametrize("limit", [1, 5, 64])
async def test_a_batch_of_what_takes_long_to_take_ends_early_and_the_rest_comes_next(context, address, limit):
    pair = Pair(context, address)
    await settle(pair)
    sent = [b"%d" % n for n in range(20)]
    pair.make_near_readable(sent)
    take = pair.pump._take

    def slowly():
        message = take()
        time.sleep(0.002)
        return message

    pair.pump._take = slowly
    got = []
    with trio.fail_after(30):
        while len(got) < len(sent):
            batch = await pair.pump.receive(limit)
            assert len(batch) <= min(limit, 8)
            got += batch
    assert got == sent


async def test_wake_makes_receive_return_empty_handed_once(context):
    pair = Pair(context, "inproc://test")
    with trio.fail_after(30):
        pair.pump.wake()
        assert await pair.pump.receive() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.pump.receive)
            await wait_all_tasks_blocked()
            pair.pump.wake()
    await settle(pair)
    with trio.move_on_after(0.05) as patience:
        await pair.pump.receive()
    assert patience.cancelled_caught, "it sleeps again"
    pair.far.send(b"x")
    with trio.fail_after(30):
        got = []
        while not got:
            got = await pair.pump.receive()
    assert got == [b"x"]


async def test_a_wake_that_came_while_nobody_waited_is_not_forgotten(context):
    pair = Pair(context, "inproc://test")
    await settle(pair)
    pair.pump.wake()
    await wait_all_tasks_blocked(0.01)
    with trio.fail_after(30):
        assert await pair.pump.receive() == []


async def test_messages_of_several_frames_stay_whole_and_what_is_too_large_is_dropped_whole(context):
    pair = Pair(context, "inproc://test")
    pair.pump._take = whole_messages(pair.near, max_frames=3, max_bytes=10)
    for message in ([b"1", b"2", b"3"], [b""] * 4, [b"x" * 11], [b"x" * 6, b"y" * 5], [b"ok"], [b"a", b""]):
        pair.far.send_multipart(message)
    with trio.fail_after(30):
        got = []
        while len(got) < 6:
            got += await pair.pump.receive()
    assert [m if not isinstance(m, Oversized) else (m.frames, m.body_bytes) for m in got] == [
        [b"1", b"2", b"3"],
        (4, 0),
        (1, 11),
        (2, 11),
        b"ok",
        [b"a", b""],
    ]


async def test_after_a_short_message_the_next_frame_is_the_next_peers_name(context):
    router = context.socket(zmq.ROUTER)
    router.bind("inproc://router")
    peers = [context.socket(zmq.DEALER) for _ in range(2)]
    for number, peer in enumerate(peers):
        peer.setsockopt(zmq.ROUTING_ID, b"peer%d" % number)
        peer.connect("inproc://router")
    pump = Pump(router, lambda: rest_of_message(router, [router.recv(zmq.NOBLOCK)], 16, 100))
    peers[0].send(b"")
    peers[1].send_multipart([b"h", b"b"])
    with trio.fail_after(30):
        got = []
        while len(got) < 2:
            got += await pump.receive()
    assert sorted(got) == [[b"peer0", b""], [b"peer1", b"h", b"b"]]
    pump.close()


async def test_offer_sends_all_frames_or_nothing(context):
    pair = Pair(context, "inproc://test", SNDHWM=1, RCVHWM=1)
    sent = 0
    while pair.pump.offer([b"1", b"2" * 70_000, b"3"]):
        sent += 1
    assert [pair.far.recv_multipart() for _ in range(sent)] == [[b"1", b"2" * 70_000, b"3"]] * sent
    assert not pair.far.poll(0)


async def test_an_unknown_peer_of_a_mandatory_router_is_told(context):
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.bind("inproc://router")
    pump = Pump(router, whole_messages(router))
    with pytest.raises(zmq.ZMQError) as error:
        pump.offer([b"nobody", b"x"])
    assert error.value.errno == zmq.EHOSTUNREACH
    pump.close()


# -- a context that ends, a peer that goes in the middle of a message, a take that fails


class SaysNothing(Pump):
    def _terminated(self):
        """Only the task that looked knows."""
        self._closed = True


@pytest.mark.parametrize("kind", [Pump, SaysNothing])
@pytest.mark.parametrize("look", ["offer", "events"])
async def test_whoever_sees_the_context_end_wakes_the_sleeper(context, kind, look):
    pair = Pair(context, "inproc://test", kind)
    await settle(pair)
    ended = []

    async def receive():
        with pytest.raises(trio.ClosedResourceError):
            await receive_for_ever(pair.pump)
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        context.begin_to_end()
        pair.wait_for_descriptor()
        with pytest.raises(trio.ClosedResourceError):
            pair.pump.offer([b"x"]) if look == "offer" else pair.pump.events()
        assert not pair.descriptor_is_readable
        await wait_all_tasks_blocked(0.02)
        assert bool(ended) is (kind is Pump)
        nursery.cancel_scope.cancel()
    pair.pump.close()


async def test_an_offer_after_the_context_has_ended_says_so(context):
    pair = Pair(context, "inproc://test")
    context.begin_to_end()
    pair.wait_for_descriptor()
    with pytest.raises(trio.ClosedResourceError, match="terminated"):
        pair.pump.offer([b"x"])
    assert pair.pump.closed
    pair.pump.close()


async def test_closing_at_once_after_the_context_has_ended_wakes_the_sleeper(context):
    pair = Pair(context, "inproc://test")
    await settle(pair)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends_closed, pair.pump)
            await wait_all_tasks_blocked()
            context.begin_to_end()
            pair.wait_for_descriptor()
            with pytest.raises(trio.ClosedResourceError):
                pair.pump.events()
            pair.pump.close()


async def ends_closed(pump):
    with pytest.raises(trio.ClosedResourceError):
        await receive_for_ever(pump)


class LeavesItHalf(Pump):
    def _finish_dropped(self, frames):
        """What libzmq drops is not finished: it takes the next message for the rest of this one."""


@pytest.mark.parametrize("kind", [Pump, LeavesItHalf])
async def test_a_peer_that_goes_in_the_middle_of_a_message_takes_no_other_with_it(context, address, kind):
    pair = Pair(context, address, kind)
    await settle(pair)
    send, sent = pair.pump.send, []

    def interrupted(frame, *rest):
        if len(sent) == 1:
            pair.far.close(0)
            pair.wait_for_descriptor()
        sent.append(frame)
        return send(frame, *rest)

    pair.pump.send = interrupted
    assert not pair.pump.offer([b"1", b"2", b"3", b"4"])
    pair.pump.send = send
    pair.far = context.socket(zmq.DEALER)
    pair.connect()
    with trio.fail_after(30):
        await pair.pump.writable()
    assert pair.pump.offer([b"next"])
    assert pair.pump.offer([b"last"])
    expected = [[b"next"], [b"last"]] if kind is Pump else [[b"last"]]
    assert pair.far.poll(30_000)
    assert [pair.far.recv_multipart() for _ in expected] == expected


async def test_a_pair_that_loses_its_peer_in_the_middle_begins_anew(context):
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.bind("inproc://pair")
    far.connect("inproc://pair")
    pump = Pump(near, whole_messages(near))
    send, sent = pump.send, []

    def interrupted(frame, *rest):
        if len(sent) == 1:
            far.close(0)
            let_libzmq_work()
        sent.append(frame)
        return send(frame, *rest)

    pump.send = interrupted
    assert not pump.offer([b"1", b"2", b"3"])
    assert sent == [b"1", b"2"]
    pump.send = send
    for _ in range(3):  # it reads the end of the old one's messages
        assert pump._take_up_to(1) == []
        let_libzmq_work()
    other = context.socket(zmq.PAIR)
    other.connect("inproc://pair")
    with trio.fail_after(30):
        await pump.writable()
    assert pump.offer([b"next"])
    assert other.poll(30_000)
    assert other.recv_multipart() == [b"next"]
    pump.close()


async def test_what_was_taken_before_a_take_failed_is_returned_and_the_failure_comes_next(context):
    rep, req = context.socket(zmq.REP), context.socket(zmq.REQ)
    rep.bind("inproc://rep")
    req.connect("inproc://rep")
    req.send(b"question")
    pump = Pump(rep, whole_messages(rep))
    with trio.fail_after(30):
        assert await pump.receive(64) == [b"question"]
    pump.drained = False
    with pytest.raises(zmq.ZMQError) as error:
        await pump.receive(64)
    assert error.value.errno == zmq.EFSM
    pump.close()


async def test_what_was_taken_before_the_context_ended_is_returned_and_its_end_comes_next(context):
    pair = Pair(context, "inproc://test")
    await settle(pair)
    pair.make_near_readable([b"x"])
    take, taken = pair.pump._take, []

    def take_one():
        if taken:
            raise zmq.ContextTerminated
        taken.append(take())
        return taken[0]

    pair.pump._take = take_one
    assert await pair.pump.receive() == [b"x"]
    with pytest.raises(trio.ClosedResourceError):
        await pair.pump.receive()
    pair.pump.close()


@pytest.mark.parametrize(("full_at", "sent"), [(0, [b"1"]), (2, [b"1", b"2", b"3"])])
async def test_of_a_message_that_was_not_begun_or_all_but_ended_nothing_is_sent_after_a_no(context, full_at, sent):
    pair = Pair(context, "inproc://test")
    tried = []

    def send(frame, *_):
        tried.append(frame)
        if len(tried) == full_at + 1:
            raise zmq.Again

    pair.pump.send = send
    assert not pair.pump.offer([b"1", b"2", b"3"])
    assert tried == sent
    pair.pump.close()
