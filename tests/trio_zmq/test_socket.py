"""Do sockets lose nothing, whoever sends, receives, cancels and closes at the same time?"""

import errno
import select
import time
from contextlib import suppress

import pytest
import trio
import zmq
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_zmq import AddressRefused, OutOfTurn, UnknownPeer
from trio_zmq.socket import checked_frames, has_strange_port


def pair(sockets, address, near=zmq.DEALER, far=zmq.DEALER, **options):
    numbers = {getattr(zmq, name): value for name, value in options.items()}
    left, right = sockets.socket(near, numbers), sockets.socket(far, numbers)
    right.connect(left.bind(address))
    return left, right


async def fill(socket, size=10_000):
    """Send until nothing more goes in, even if its thread has time to pass some on; return how many went in."""
    sent = 0
    with trio.move_on_after(0.3) as patience:
        while True:
            await socket.send([b"%d" % sent, b"x" * size])
            sent += 1
            patience.deadline = trio.current_time() + 0.3
    return sent


# -- there and back


async def test_messages_go_both_ways_with_all_their_frames(sockets, address):
    left, right = pair(sockets, address)
    with trio.fail_after(30):
        await left.send(b"one")
        await left.send([b"", b"two", b""])
        assert await right.receive() == [b"one"]
        assert await right.receive() == [b"", b"two", b""]
        right.send_nowait([bytearray(b"a"), memoryview(b"b")])
        assert await left.receive() == [b"a", b"b"]


async def test_batches_keep_the_order_and_the_limit(sockets, address):
    left, right = pair(sockets, address)
    sent = [[b"%d" % number] for number in range(500)]
    got = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, left, sent)
        with trio.fail_after(30):
            while len(got) < len(sent):
                batch = await right.receive_many(7)
                assert 1 <= len(batch) <= 7
                got += batch
    assert got == sent


async def send_all(socket, messages):
    for message in messages:
        await socket.send(message)


async def test_receive_takes_one_message_and_leaves_the_others_to_others(sockets):
    left, right = pair(sockets, "inproc://test")
    left.send_nowait(b"1")
    left.send_nowait(b"2")
    assert await right.receive() == [b"1"]
    assert right.raw.recv(zmq.NOBLOCK) == b"2"


async def test_iteration_goes_on_until_the_socket_is_closed(sockets):
    left, right = pair(sockets, "inproc://test")
    got = []
    for number in range(3):
        left.send_nowait(b"%d" % number)

    async def read():
        async for (frame,) in right:
            got.append(frame)
            if len(got) == 3:
                await right.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await read()
    assert got == [b"0", b"1", b"2"]


async def test_every_call_lets_others_run(sockets):
    left, right = pair(sockets, "inproc://test")
    with assert_checkpoints():
        await left.send(b"1")
    with assert_checkpoints():
        await right.receive()
    with assert_checkpoints():
        await right.aclose()


# -- many at once


async def test_two_receivers_get_every_message_once(sockets, address):
    left, right = pair(sockets, address)
    got = []

    async def receive():
        async for (frame,) in right:
            got.append(frame)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with trio.fail_after(30):
            for number in range(100):
                await left.send(b"%d" % number)
            while len(got) < 100:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert sorted(got, key=int) == [b"%d" % number for number in range(100)]


async def test_one_news_for_two_messages_wakes_two_receivers(sockets, address):
    left, right = pair(sockets, address)
    await left.send(b"hello")
    await right.receive()
    got = []

    async def receive_one():
        got.extend(await right.receive())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_one)
            nursery.start_soon(receive_one)
            await wait_all_tasks_blocked()
            left.send_nowait(b"1")
            left.send_nowait(b"2")
    assert sorted(got) == [b"1", b"2"]


async def test_a_receiver_and_a_sender_wait_at_once(sockets, address):
    near = sockets.socket(zmq.DEALER)
    where = near.bind(address)
    got = []

    async def receive():
        got.extend(await near.receive())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(near.send, b"to whoever comes")
            await wait_all_tasks_blocked(0.01)
            assert len(nursery.child_tasks) == 2, "there is nobody"
            far = sockets.socket(zmq.DEALER)
            far.connect(where)
            assert await far.receive() == [b"to whoever comes"]
            await far.send(b"back")
    assert got == [b"back"]


@pytest.mark.parametrize("use", ["bind", "get"])
async def test_what_else_is_done_past_a_receiver_does_not_swallow_its_message(sockets, address, tmp_path, use):
    left, right = pair(sockets, address)
    await left.send(b"hello")
    got = []

    async def receive():
        got.extend(await right.receive())

    with trio.fail_after(30):
        assert await right.receive() == [b"hello"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            left.send_nowait(b"x")
            descriptor = int(right.raw.get(zmq.FD))
            assert select.select([descriptor], [], [], 30)[0]
            time.sleep(0.03)  # noqa: ASYNC251 - libzmq is to work, trio's loop is not
            right.get(zmq.EVENTS) if use == "get" else right.bind(f"ipc://{tmp_path}/other")
            assert not select.select([descriptor], [], [], 0)[0], "it has looked at the news itself"
    assert got == [b"x"]


# -- cancellation


async def test_a_cancelled_receive_takes_nothing(sockets, address):
    left, right = pair(sockets, address)
    await left.send(b"hello")
    with trio.fail_after(30):
        await right.receive()
    left.send_nowait(b"x")
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await right.receive()
        assert scope.cancelled_caught
    with trio.fail_after(30):
        assert await right.receive() == [b"x"]


async def test_a_receive_that_is_cancelled_as_the_message_comes_returns_it_or_leaves_it(sockets, address):
    left, right = pair(sockets, address)
    got = []

    async def receive(scope):
        with scope:
            got.append(await right.receive())

    with trio.fail_after(30):
        for number in range(50):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(receive, scope)
                await trio.lowlevel.checkpoint()
                await left.send(b"%d" % number)
                scope.cancel()
        while len(got) < 50:
            got.append(await right.receive())
    assert got == [[b"%d" % number] for number in range(50)]


async def test_a_cancelled_send_sends_nothing_and_the_next_goes_through_whole(sockets, address):
    left, right = pair(sockets, address, SNDHWM=1, RCVHWM=1, SNDBUF=4_096, RCVBUF=4_096)
    sent = await fill(left)  # its last one was cancelled
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.send([b"cancelled", b"y"])
    assert scope.cancelled_caught
    with trio.fail_after(30):
        for number in range(sent):
            assert await right.receive() == [b"%d" % number, b"x" * 10_000]
        await left.send([b"last", b"z"])
        assert await right.receive() == [b"last", b"z"]


# -- room


async def test_at_the_high_water_mark_senders_wait_until_there_is_room_again(sockets, address):
    left, right = pair(sockets, address, SNDHWM=1, RCVHWM=1, SNDBUF=4_096, RCVBUF=4_096)
    sent = await fill(left)
    with pytest.raises(trio.WouldBlock):
        left.send_nowait(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, b"one")
        nursery.start_soon(left.send, b"two")
        await wait_all_tasks_blocked(0.01)
        assert len(nursery.child_tasks) == 2, "there is no room"
        with trio.fail_after(30):
            got = [await right.receive() for _ in range(sent + 2)]
    assert [message[0] for message in got[:sent]] == [b"%d" % number for number in range(sent)]
    assert sorted(got[sent:]) == [[b"one"], [b"two"]]


async def test_a_no_that_libzmq_says_before_it_has_looked_is_not_believed(sockets):
    left, right = pair(sockets, "inproc://test")
    send, asked = left.pump.send, []

    def stale(frame, *rest):
        asked.append(frame)
        if len(asked) == 1:
            raise zmq.Again
        return send(frame, *rest)

    left.pump.send = stale
    left.send_nowait(b"x")
    with trio.fail_after(30):
        assert await right.receive() == [b"x"]
    assert asked == [b"x", b"x"]


# -- ROUTER, REQ, REP, SUB


async def test_a_router_says_that_a_peer_is_unknown_and_goes_on(sockets, address):
    router = sockets.socket(zmq.ROUTER)
    dealer = sockets.socket(zmq.DEALER, {zmq.ROUTING_ID: b"dealer"})
    dealer.connect(router.bind(address))
    await dealer.send(b"hello")
    with trio.fail_after(30):
        assert await router.receive() == [b"dealer", b"hello"]
        with pytest.raises(UnknownPeer):
            await router.send([b"nobody", b"x", b"y"])
        with pytest.raises(UnknownPeer):
            router.send_nowait([b"nobody", b"x"])
        await router.send([b"dealer", b"x"])
        assert await dealer.receive() == [b"x"]


async def test_a_full_peer_of_a_router_is_waited_for_without_a_busy_loop(sockets):
    router = sockets.socket(zmq.ROUTER, {zmq.SNDHWM: 1})
    router.bind("inproc://router")
    full, free = (sockets.socket(zmq.DEALER, {zmq.ROUTING_ID: name, zmq.RCVHWM: 1}) for name in (b"full", b"free"))
    for dealer in (full, free):
        dealer.connect("inproc://router")
        await dealer.send(b"hello")
        await router.receive()
    sent = 0
    with suppress(trio.WouldBlock):
        while sent < 1_000:
            router.send_nowait([b"full", b"%d" % sent])
            sent += 1
    assert sent < 1_000
    tries, send = [], router.pump.send

    def counting(frame, *rest):
        tries.append(frame)
        return send(frame, *rest)

    router.pump.send = counting
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(router.send, [b"full", b"at last"])
            await trio.sleep(0.05)
            assert 1 <= len(tries) < 50
            assert router.get(zmq.EVENTS) & zmq.POLLOUT, "the other has room"
            await router.send([b"free", b"not held up"])
            assert await free.receive() == [b"not held up"]
            for number in range(sent):
                assert await full.receive() == [b"%d" % number]
        assert await full.receive() == [b"at last"]


async def test_questions_and_answers_go_in_turns(sockets, address):
    rep, req = pair(sockets, address, zmq.REP, zmq.REQ)
    with trio.fail_after(30):
        with pytest.raises(OutOfTurn, match="REQ socket sends, then receives"):
            await req.receive()
        with pytest.raises(OutOfTurn, match="REP socket receives, then sends"):
            rep.send_nowait(b"x")
        await req.send(b"question")
        with pytest.raises(OutOfTurn):
            await req.send(b"another")
        assert await rep.receive_many() == [[b"question"]]
        with pytest.raises(OutOfTurn):
            await rep.receive()
        await rep.send([b"an", b"swer"])
        assert await req.receive() == [b"an", b"swer"]


@pytest.mark.parametrize("kind", [zmq.SUB, zmq.XSUB])
async def test_subscriptions_are_prefixes_and_can_be_undone(sockets, address, kind):
    publisher, subscriber = sockets.socket(zmq.XPUB), sockets.socket(kind)
    subscriber.connect(publisher.bind(address))
    subscriber.subscribe("a")
    subscriber.subscribe(b"b")
    with trio.fail_after(30):
        assert sorted([await publisher.receive(), await publisher.receive()]) == [[b"\x01a"], [b"\x01b"]]
        for topic in (b"ax", b"bx", b"cx"):
            await publisher.send([topic, b"1"])
        assert [await subscriber.receive(), await subscriber.receive()] == [[b"ax", b"1"], [b"bx", b"1"]]
        subscriber.unsubscribe("a")
        assert await publisher.receive() == [b"\x00a"]
        await publisher.send([b"ax", b"2"])
        await publisher.send([b"bx", b"2"])
        assert await subscriber.receive() == [b"bx", b"2"]


async def test_sockets_that_go_one_way_say_so(sockets):
    with pytest.raises(TypeError, match="PUSH socket goes the other way"):
        await sockets.socket(zmq.PUSH).receive()
    with pytest.raises(TypeError, match="PULL socket goes the other way"):
        await sockets.socket(zmq.PULL).send(b"x")
    with pytest.raises(TypeError, match="PULL socket has no subscriptions"):
        sockets.socket(zmq.PULL).subscribe("x")


# -- bad messages


@pytest.mark.parametrize(
    ("bad", "error"), [("text", TypeError), ([], ValueError), ([b"a", "text", b"b"], TypeError), ([b"a", None], TypeError)]
)
async def test_what_is_no_message_is_refused_before_any_of_it_is_sent(sockets, bad, error):
    left, right = pair(sockets, "inproc://test")
    with pytest.raises(error):
        await left.send(bad)
    with pytest.raises(error):
        left.send_nowait(bad)
    await left.send(b"next")
    assert await right.receive() == [b"next"]


def test_bytes_are_one_frame():
    assert checked_frames(b"abc") == (b"abc",)
    assert checked_frames([b"a", b""]) == [b"a", b""]


async def test_messages_over_the_limits_are_dropped_whole_and_counted(sockets, address):
    left = sockets.socket(zmq.PUSH)
    right = sockets.socket(zmq.PULL, max_frames=3, max_bytes=10)
    dropped = []
    right.on_oversized = lambda message: dropped.append((message.frames, message.body_bytes))
    right.connect(left.bind(address))
    for message in ([b"1", b"2", b"3"], [b""] * 1_000, [b"x" * 11], [b"x" * 6, b"y" * 5], [b"x" * 10], [b"", b""]):
        await left.send(message)
    with trio.fail_after(30):
        got = []
        while len(got) < 3:
            got += await right.receive_many()
    assert got == [[b"1", b"2", b"3"], [b"x" * 10], [b"", b""]]
    assert dropped == [(1_000, 0), (1, 11), (2, 11)]
    assert right.oversized == 3


async def test_limits_that_make_no_sense_are_refused(sockets):
    for wrong in ({"max_frames": 0}, {"max_bytes": -1}, {"linger_ms": -1}):
        with pytest.raises(ValueError, match="or more"):
            sockets.socket(zmq.PULL, **wrong)
    with pytest.raises(ValueError, match="limit"):
        await sockets.socket(zmq.PULL).receive_many(0)


# -- addresses and options


async def test_addresses_that_cannot_be_had_are_refused_in_words(sockets, tmp_path):
    first, second = sockets.socket(zmq.PULL), sockets.socket(zmq.PUSH)
    where = first.bind("tcp://127.0.0.1:*")
    for call, address, number in [
        (second.bind, where, errno.EADDRINUSE),
        (second.bind, "nonsense", errno.EINVAL),
        (second.bind, "gopher://x", zmq.EPROTONOSUPPORT),
        (second.bind, f"ipc://{tmp_path}/missing/s", errno.ENOENT),
        (second.connect, "tcp://127.0.0.1", errno.EINVAL),
        (second.unbind, where, errno.ENOENT),
        (second.disconnect, where, errno.ENOENT),
    ]:
        with pytest.raises(AddressRefused, match=f"PUSH can't {call.__name__} .*{address}") as error:
            call(address)
        assert error.value.errno == number


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:-1", "tcp://[::1]:65536", "tcp://127.0.0.1:70000;127.0.0.1:5555"],
)
@pytest.mark.parametrize("verb", ["bind", "connect"])
async def test_a_port_that_there_is_not_is_not_taken_for_another(sockets, verb, address):
    with pytest.raises(AddressRefused, match=r"ports are from 0 to 65535") as error:
        getattr(sockets.socket(zmq.PUSH), verb)(address)
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "address",
    ["tcp://[::1]:5555", "tcp://::1:65535", "tcp://*:*", "tcp://eth0:0", "ipc:///tmp/a:99999", "inproc://a:99999", "nonsense"],
)
def test_what_has_no_strange_port_is_for_libzmq_to_judge(address):
    assert not has_strange_port(address)


async def test_an_address_that_was_given_up_is_no_more(sockets, address):
    left, right = sockets.socket(zmq.PUSH), sockets.socket(zmq.PULL)
    where = left.bind(address)
    right.connect(where)
    await left.send(b"x")
    with trio.fail_after(30):
        assert await right.receive() == [b"x"]
    right.disconnect(where)
    with pytest.raises(AddressRefused, match="undone"):
        right.disconnect(where)
    left.unbind(where)
    with pytest.raises(AddressRefused, match="undone"):
        left.unbind(where)


async def test_options_are_set_and_read(sockets):
    socket = sockets.socket(zmq.DEALER, {zmq.SNDHWM: 5, zmq.ROUTING_ID: b"me"})
    assert (socket.get(zmq.SNDHWM), socket.get(zmq.ROUTING_ID)) == (5, b"me")
    socket.set(zmq.PLAIN_USERNAME, "user")
    with pytest.raises(ValueError, match="linger_ms"):
        socket.set(zmq.LINGER, -1)
    with pytest.raises(zmq.ZMQError):
        socket.set(zmq.SUBSCRIBE, b"x")
    assert repr(socket) == "<DEALER socket>"
    await socket.aclose()
    assert repr(socket) == "<DEALER socket, closed>"


# -- the end


async def test_closing_wakes_all_that_wait(sockets, address):
    left = sockets.socket(zmq.DEALER)
    left.bind(address)
    ended = []

    async def ends(call, *arguments):
        with pytest.raises(trio.ClosedResourceError):
            await call(*arguments)
        ended.append(call.__name__)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for call in ((left.receive,), (left.receive_many,), (left.send, b"x"), (left.send, b"y")):
                nursery.start_soon(ends, *call)
            await wait_all_tasks_blocked(0.01)
            await left.aclose()
    assert sorted(ended) == ["receive", "receive_many", "send", "send"]


async def test_a_closed_socket_refuses_everything_and_closing_again_does_nothing(sockets):
    async with sockets.socket(zmq.DEALER) as socket:
        pass
    await socket.aclose()
    for call in (socket.receive, lambda: socket.send(b"x")):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    for call in (
        lambda: socket.bind("inproc://x"),
        lambda: socket.send_nowait(b"x"),
        lambda: socket.get(zmq.SNDHWM),
        lambda: socket.set(zmq.SNDHWM, 1),
        socket.monitor,
    ):
        with pytest.raises(trio.ClosedResourceError):
            call()


async def test_a_socket_is_closed_though_its_task_is_cancelled(sockets):
    with trio.CancelScope() as scope:
        async with sockets.socket(zmq.PULL) as socket:
            scope.cancel()
    assert socket.raw.closed


async def test_what_was_sent_before_the_end_still_arrives_within_the_linger(sockets):
    left, right = sockets.socket(zmq.PUSH, linger_ms=30_000), sockets.socket(zmq.PULL)
    where = left.bind("tcp://127.0.0.1:*")
    right.connect(where)
    with trio.fail_after(30):
        for number in range(200):
            await left.send(b"%d" % number)
        await left.aclose()
        got = [await right.receive() for _ in range(200)]
    assert got == [[b"%d" % number] for number in range(200)]
