"""Does a context end in time whatever its sockets do, and is it used by nobody but its owner?"""

import subprocess
import sys
import textwrap

import pytest
import trio
import zmq

from trio_zmq import Context, ForeignUse, Socket, TooManySockets


async def test_the_end_of_the_block_closes_all_sockets_and_the_context():
    with trio.fail_after(30):
        async with Context() as context:
            sockets = [context.socket(zmq.PULL) for _ in range(3)]
            monitor = sockets[0].monitor()
        assert all(socket.raw.closed for socket in sockets)
        assert monitor.closed
        assert context.raw.closed
        await context.aclose()
        with pytest.raises(trio.ClosedResourceError):
            context.socket(zmq.PULL)


async def test_messages_for_nobody_hold_up_the_end_for_the_linger_and_no_longer():
    with trio.fail_after(30):
        async with Context(linger_ms=50) as context:
            socket = context.socket(zmq.PUSH)
            socket.connect("tcp://127.0.0.1:9")
            await socket.send(b"for nobody")
        assert context.raw.closed


async def test_the_end_waits_for_sockets_that_were_closed_before(sockets):
    with trio.fail_after(30):
        async with Context(linger_ms=0) as context:
            receiver = sockets.socket(zmq.PULL)
            async with context.socket(zmq.PUSH, linger_ms=10_000) as socket:
                socket.connect(receiver.bind("tcp://127.0.0.1:*"))
                for number in range(100):
                    await socket.send(b"%d" % number)
        assert context.raw.closed
        assert [await receiver.receive() for _ in range(100)] == [[b"%d" % number] for number in range(100)]


async def test_the_end_comes_though_cancelled_and_what_was_sent_goes_out(sockets):
    receiver = sockets.socket(zmq.PULL)
    with trio.fail_after(30):
        with trio.CancelScope() as scope:
            async with Context() as context:
                socket = context.socket(zmq.PUSH)
                socket.connect(receiver.bind("tcp://127.0.0.1:*"))
                await socket.send(b"last words")
                scope.cancel()
        assert scope.cancelled_caught
        assert context.raw.closed
        assert await receiver.receive() == [b"last words"]


async def test_a_socket_in_foreign_hands_holds_up_the_end_for_a_second_and_is_left_behind():
    context = Context(linger_ms=0)
    theirs = zmq.Context.shadow(context.raw.underlying).socket(zmq.PULL)
    with trio.fail_after(30), pytest.warns(ResourceWarning, match="did not end in time"):
        await context.aclose()
    theirs.close(0)
    with trio.fail_after(30):
        while not context.raw.closed:  # noqa: ASYNC110 - what ends it is a thread of nobody's
            await trio.sleep(0.01)


async def test_a_context_has_room_for_as_many_sockets_as_it_says_and_a_closed_one_makes_room():
    async with Context(max_sockets=5, linger_ms=0) as context:
        made = [context.socket(zmq.PULL) for _ in range(5)]
        with pytest.raises(TooManySockets, match="may have 5"):
            context.socket(zmq.PULL)
        with pytest.raises(zmq.ZMQError):
            made[0].monitor()
        await made.pop().aclose()
        with trio.fail_after(30):
            while True:
                try:
                    made.append(context.socket(zmq.PULL))
                except TooManySockets:  # libzmq closes in the background
                    await trio.sleep(0.001)
                else:
                    break


async def test_many_sockets_talk_at_once():
    async with Context(max_sockets=2_000, linger_ms=0) as context, trio.open_nursery() as nursery:
        hub = context.socket(zmq.ROUTER)
        hub.bind("inproc://hub")
        answers = []

        async def ask(number):
            socket = context.socket(zmq.DEALER)
            socket.connect("inproc://hub")
            await socket.send(b"%d" % number)
            answers.append((number, await socket.receive()))
            await socket.aclose()

        for number in range(300):
            nursery.start_soon(ask, number)
        with trio.fail_after(60):
            served = 0
            while served < 300:
                for message in await hub.receive_many():
                    await hub.send(message)
                    served += 1
    assert sorted(answers) == [(number, [b"%d" % number]) for number in range(300)]


async def test_wrong_numbers_are_refused():
    for wrong in ({"max_sockets": 0}, {"max_sockets": 1 << 20}, {"linger_ms": -1}):
        with pytest.raises(ValueError, match="not "):
            Context(**wrong)


async def test_options_that_a_socket_cannot_have_leave_no_socket_behind():
    async with Context(max_sockets=1, linger_ms=0) as context:
        with pytest.raises(zmq.ZMQError):
            context.socket(zmq.PULL, {zmq.SUBSCRIBE: b""})
        with trio.fail_after(30):
            while True:
                try:
                    context.socket(zmq.PULL)
                except TooManySockets:
                    await trio.sleep(0.001)
                else:
                    break


# -- whose it is


def test_outside_of_trio_nothing_is_made():
    with pytest.raises(ForeignUse, match=r"inside trio\.run"):
        Context()
    with zmq.Context() as context, context.socket(zmq.PULL) as raw, pytest.raises(ForeignUse):
        Socket(raw)


async def test_other_threads_are_refused(sockets):
    near, far = sockets.socket(zmq.PAIR), sockets.socket(zmq.PAIR)
    near.bind("inproc://pair")
    far.connect("inproc://pair")
    for call in (
        lambda: near.send_nowait(b"x"),
        lambda: near.bind("inproc://other"),
        lambda: near.get(zmq.EVENTS),
        lambda: near.set(zmq.SNDHWM, 1),
        near.close,
        near.monitor,
        lambda: sockets.socket(zmq.PULL),
        lambda: trio.run(near.receive),
        lambda: trio.run(near.send, b"x"),
        lambda: trio.run(sockets.aclose),
    ):
        with pytest.raises(ForeignUse, match="another thread"):
            await trio.to_thread.run_sync(call)
    await trio.to_thread.run_sync(trio.from_thread.run_sync, near.send_nowait, b"through the right door")
    assert await far.receive() == [b"through the right door"]


def test_another_run_of_trio_is_refused():
    kept = []

    async def first():
        kept.append(Context())

    async def second():
        with pytest.raises(ForeignUse):
            kept[0].socket(zmq.PULL)

    trio.run(first)
    trio.run(second)
    kept[0].raw.term()


FORKED = textwrap.dedent("""
    import os, sys, trio, zmq
    from trio_zmq import Context, ForeignUse

    async def main():
        async with Context(linger_ms=0) as context:
            socket = context.socket(zmq.PULL)
            child = os.fork()
            if not child:
                for call in (lambda: context.socket(zmq.PULL), socket.close, lambda: socket.bind("inproc://x")):
                    try:
                        call()
                    except ForeignUse as error:
                        print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)

    trio.run(main)
""")


def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("does not survive fork()") == 3
