"""Does a monitor tell everything once and in order, to functions and to those who read its events?"""

import errno

import pytest
import trio
import zmq
from trio.testing import wait_all_tasks_blocked

from trio_zmq import Context, Monitor, TooManySockets


async def some_life(sockets, where, times):
    """Connect, talk and go, several times."""
    for _ in range(times):
        async with sockets.socket(zmq.PUSH, linger_ms=10_000) as peer:
            peer.connect(where)
            await peer.send(b"x")


async def heard(pull, times):
    """Receive what they said: until then they linger."""
    with trio.fail_after(30):
        for _ in range(times):
            assert await pull.receive() == [b"x"]


async def until(events, kind, times=1):
    seen = []
    with trio.fail_after(30):
        async for event in events:
            seen.append(event)
            times -= event.kind == kind
            if not times:
                break
    return seen


async def test_events_come_in_order_with_names_values_and_addresses(sockets):
    pull = sockets.socket(zmq.PULL)
    with pull.monitor() as monitor:
        where = pull.bind("tcp://127.0.0.1:*")
        await some_life(sockets, where, 1)
        seen = await until(monitor.events(), zmq.Event.DISCONNECTED)
    assert [event.kind for event in seen] == [
        zmq.Event.LISTENING,
        zmq.Event.ACCEPTED,
        zmq.Event.HANDSHAKE_SUCCEEDED,
        zmq.Event.DISCONNECTED,
    ]
    assert {event.address for event in seen} == {where}
    assert seen[1].value == seen[3].value > 0, "the descriptor of the connection"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_every_connection_is_told_of(sockets, transport, tmp_path):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED))
    where = pull.bind("tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/s")
    await some_life(sockets, where, 20)
    seen = await until(monitor.events(), zmq.Event.DISCONNECTED, 20)
    while len([event for event in seen if event.kind == zmq.Event.ACCEPTED]) < 20:
        seen += await until(monitor.events(), zmq.Event.ACCEPTED)
    assert {event.kind for event in seen} == {zmq.Event.ACCEPTED, zmq.Event.DISCONNECTED}


async def test_inproc_has_no_connections_to_tell_of_and_the_end_is_told(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = Monitor(pull.raw)
    pull.bind("inproc://test")
    await some_life(sockets, "inproc://test", 1)
    await pull.aclose()
    with trio.fail_after(30):
        seen = [event async for event in monitor.events()]
    assert [event.kind for event in seen] == [zmq.Event.MONITOR_STOPPED]
    assert monitor.closed
    monitor.close()


async def test_a_reader_that_is_cancelled_loses_no_event(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_ACCEPTED))
    where = pull.bind("tcp://127.0.0.1:*")
    await some_life(sockets, where, 10)
    seen, events = [], monitor.events()
    with trio.fail_after(30):
        while len(seen) < 10:
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(events)
            assert scope.cancelled_caught
            seen.append(await anext(events))
    assert {event.kind for event in seen} == {zmq.Event.ACCEPTED}
    await heard(pull, 10)


async def test_several_readers_share_the_events_and_all_see_the_end(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_ACCEPTED))
    where = pull.bind("tcp://127.0.0.1:*")
    seen = []

    async def read():
        async for event in monitor.events():
            seen.append(event)  # noqa: PERF401 - others see it at once

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await some_life(sockets, where, 10)
            while len(seen) < 10:
                await trio.lowlevel.checkpoint()
            await heard(pull, 10)
            await pull.aclose()
    assert len([event for event in seen if event.kind == zmq.Event.ACCEPTED]) == 10


async def test_one_who_reads_one_event_leaves_the_others_to_those_who_wait(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_LISTENING))
    seen = []

    async def read_one():
        seen.append(await anext(monitor.events()))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read_one)
            await wait_all_tasks_blocked()
            addresses = [pull.bind("tcp://127.0.0.1:*") for _ in range(3)]
    assert sorted(event.address for event in seen) == sorted(addresses)


class Late:
    """A pump for whom something happens between trio's last look at the descriptor and its own."""

    def __init__(self, pump, happens):
        self.pump = pump
        self.happens = happens

    def __getattr__(self, name):
        return getattr(self.pump, name)

    async def receive(self):
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return await self.pump.receive()


async def test_who_takes_two_events_and_wants_one_wakes_the_sleeper(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_LISTENING))
    seen = []

    async def read_one():
        seen.append(await anext(monitor.events()))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_one)
            await wait_all_tasks_blocked()
            monitor._pump = Late(monitor._pump, lambda: [pull.bind("tcp://127.0.0.1:*") for _ in range(2)])
            await read_one()
    assert len({event.address for event in seen}) == 2


async def test_who_hears_that_nothing_more_will_come_tells_the_sleeper(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor()
    seen = []

    async def read():
        seen.extend([event async for event in monitor.events()])

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            monitor._pump = Late(monitor._pump, pull.raw.disable_monitor)
            assert (await anext(monitor.events())).kind == zmq.Event.MONITOR_STOPPED
    assert seen == []


async def test_a_look_past_a_reader_does_not_swallow_its_event(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_LISTENING))
    seen = []

    async def read_one():
        seen.append(await anext(monitor.events()))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_one)
            await wait_all_tasks_blocked()
            where = pull.bind("tcp://127.0.0.1:*")
            monitor.look()
    assert [event.address for event in seen] == [where]


async def test_events_that_nobody_reads_hold_up_nobody(sockets):
    pull = sockets.socket(zmq.PULL)
    monitor = pull.monitor(int(zmq.EVENT_LISTENING))

    def bind_and_unbind():
        for _ in range(2_500):
            address = "tcp://127.0.0.1:*"
            pull.raw.bind(address)
            pull.raw.unbind(pull.raw.get_string(zmq.LAST_ENDPOINT))

    with trio.fail_after(30):
        await trio.to_thread.run_sync(bind_and_unbind, abandon_on_cancel=True)
        assert len(await until(monitor.events(), zmq.Event.LISTENING, 2_500)) == 2_500


async def test_a_socket_whose_monitor_was_closed_goes_on(sockets):
    pull = sockets.socket(zmq.PULL)
    where = pull.bind("tcp://127.0.0.1:*")
    pull.monitor().close()
    await some_life(sockets, where, 3)
    await heard(pull, 3)


async def test_a_monitor_for_which_there_is_no_room_leaves_nothing_behind():
    async with Context(max_sockets=2, linger_ms=0) as context:
        pull = context.socket(zmq.PULL)
        with pytest.raises(zmq.ZMQError) as error:
            pull.monitor()
        assert error.value.errno == errno.EMFILE
        where = pull.bind("tcp://127.0.0.1:*")
        with trio.fail_after(10):
            while True:
                try:
                    push = context.socket(zmq.PUSH)
                except TooManySockets:  # libzmq closes in the background
                    await trio.sleep(0.001)
                else:
                    break
            push.connect(where)
            await push.send(b"x")
            assert await pull.receive() == [b"x"]


async def test_functions_are_told_in_order_and_events_are_theirs_alone(sockets):
    pull = sockets.socket(zmq.PULL)
    gone = []
    monitor = Monitor(pull.raw, gone.append)
    with pytest.raises(RuntimeError, match="functions"):
        monitor.events()
    where = pull.bind("tcp://127.0.0.1:*")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            await some_life(sockets, where, 3)
            while len(gone) < 3:
                await trio.lowlevel.checkpoint()
            monitor.close()
    await heard(pull, 3)
    assert all(descriptor > 0 for descriptor in gone)


async def test_a_look_tells_without_waiting(sockets):
    pull = sockets.socket(zmq.PULL)
    gone = []
    monitor = Monitor(pull.raw, gone.append)
    await some_life(sockets, pull.bind("tcp://127.0.0.1:*"), 1)
    with trio.fail_after(30):
        while not gone:
            monitor.look()
            await trio.lowlevel.checkpoint()
    monitor.close()
    monitor.close()


async def test_a_socket_has_one_monitor_at_a_time(sockets):
    pull = sockets.socket(zmq.PULL)
    with pull.monitor(), pytest.raises(RuntimeError, match="has a monitor"):
        pull.monitor()
    with pull.monitor() as monitor:
        where = pull.bind("tcp://127.0.0.1:*")
        with trio.fail_after(30):
            assert (await anext(monitor.events())).address == where


async def test_a_handshake_that_fails_is_told_with_its_reason(sockets):
    pull = sockets.socket(zmq.PULL, {zmq.PLAIN_SERVER: 1})
    monitor = pull.monitor(int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL))
    peer = sockets.socket(zmq.PUSH)
    peer.connect(pull.bind("tcp://127.0.0.1:*"))
    with trio.fail_after(30):
        event = await anext(monitor.events())
    assert (event.kind, event.value) == (
        zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
        int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH),
    )


@pytest.mark.parametrize(("status", "reason"), [(b"700", "put off"), (b"400", "not let in")])
async def test_who_answers_for_security_can_put_a_peer_off(sockets, nursery, status, reason):
    warden = sockets.socket(zmq.REP)
    warden.bind("inproc://zeromq.zap.01")
    pull = sockets.socket(zmq.PULL, {zmq.ZAP_DOMAIN: b"here", zmq.ZAP_ENFORCE_DOMAIN: 1})
    told, happened = [], trio.Event()

    def failed(*what):
        told.append(what)
        happened.set()

    with Monitor(pull.raw, failed=failed) as monitor:
        nursery.start_soon(monitor.run)
        peer = sockets.socket(zmq.PUSH)
        where = pull.bind("tcp://127.0.0.1:*")
        peer.connect(where)
        with trio.fail_after(30):
            version, number, *_ = await warden.receive()
            await warden.send([version, number, status, b"", b"", b""])
            await happened.wait()
    assert told == [(reason, where)]
