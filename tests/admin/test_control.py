"""Who is answered at the control socket, and does anybody hold up the broker there?"""

import json
import socket
import stat
import time

import pytest
import trio

from gateway.admin import control
from gateway.admin.client import NoBroker, ask
from gateway.admin.questions import PAUSE, QUESTIONS, on_disk, open_channel
from gateway.admin.where import MAX_QUESTION_BYTES
from gateway.errors import GatewayError, NotFound, PreconditionFailed
from gateway.model.declare import QueueSpec


async def asked(directory, question, **params):
    return await trio.to_thread.run_sync(lambda: ask(directory, question, **params))


async def connected(directory):
    return trio.SocketStream(await _connected(directory))


async def _connected(directory):
    stream = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await stream.connect(str(directory / "control.sock"))
    return stream


async def line_of(stream):
    received = b""
    while not received.endswith(b"\n"):
        part = await stream.receive_some()
        if not part:
            return received
        received += part
    return received


async def test_a_question_is_answered(served, tmp_path):
    async with served(tmp_path) as broker:
        answer = await asked(tmp_path, "hello")
        assert answer["node"] == broker.node_id
        assert "queues" in answer["questions"]


async def test_the_socket_is_this_users_alone_and_goes_with_the_broker(served, tmp_path):
    path = tmp_path / "control.sock"
    async with served(tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NoBroker):
        ask(tmp_path, "hello")


async def test_queues_are_listed_as_they_are(served, tmp_path):
    async with served(tmp_path) as broker:
        channel = open_channel(broker)
        for name in ("work", "other", "workers"):
            await channel.outcome(channel.declare_queue(QueueSpec(name)))
        await channel.send("", "work", b"12345")
        rows = await asked(tmp_path, "queues", pattern="work*")
        assert [(row["name"], row["ready"], row["unacked"], row["bytes"], row["given"]) for row in rows] == [
            ("work", 1, 0, 5, 1),
            ("workers", 0, 0, 0, 0),
        ]
        assert await asked(tmp_path, "queues", vhost="nowhere") == []


async def test_a_no_keeps_its_code_and_text(served, tmp_path):
    async with served(tmp_path):
        with pytest.raises(NotFound, match="there is no question 'nosuch'"):
            await asked(tmp_path, "nosuch")
        with pytest.raises(PreconditionFailed, match="'pattern' must be text"):
            await asked(tmp_path, "queues", pattern=5)


async def test_one_connection_may_ask_again_and_again(served, tmp_path):
    async with served(tmp_path), await connected(tmp_path) as stream:
        await stream.send_all(b'{"question":"counters"}\n{"question":"nosuch"}\n{"question":"queues","params":{}}\n')
        answers = b""
        while answers.count(b"\n") < 3:
            answers += await stream.receive_some()
        first, second, third = map(json.loads, answers.splitlines())
        assert list(first) == ["answer"]
        assert second["error"]["code"] == 404
        assert third == {"answer": []}


@pytest.mark.parametrize(
    "line",
    [b"not json\n", b"[]\n", b'{"question":5}\n', b'{"question":"hello","params":[]}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n"],
)
async def test_what_is_no_question_is_told_so_and_cut_off(served, tmp_path, line):
    async with served(tmp_path):
        async with await connected(tmp_path) as stream:
            await stream.send_all(line)
            assert json.loads(await line_of(stream))["error"]["code"] == 406
            assert await stream.receive_some() == b""
        assert (await asked(tmp_path, "hello"))["alarms"] == []


async def test_a_line_without_end_is_cut_off(served, tmp_path):
    async with served(tmp_path):
        async with await connected(tmp_path) as stream:
            with trio.fail_after(10):
                try:
                    for _ in range(MAX_QUESTION_BYTES // 65_536 + 100):
                        await stream.send_all(b"x" * 65_536)
                    assert b"error" in await stream.receive_some()
                except trio.BrokenResourceError:
                    pass
        assert await asked(tmp_path, "hello")


async def test_too_many_clients_are_cut_off_and_the_others_go_on(served, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_CLIENTS", 2)
    async with served(tmp_path), await connected(tmp_path) as first, await connected(tmp_path) as second:
        for stream in (first, second):
            await stream.send_all(b'{"question":"counters"}\n')
            await line_of(stream)
        async with await connected(tmp_path) as third:
            assert b"ask again" in await line_of(third)
        await first.send_all(b'{"question":"counters"}\n')
        assert await line_of(first)


async def test_who_does_not_read_his_answer_is_cut_off(served, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "IDLE_S", 0.3)
    monkeypatch.setitem(QUESTIONS, "much", lambda broker, params: ("x" * 1000 for _ in range(100_000)))
    async with served(tmp_path) as broker:
        async with await connected(tmp_path) as stream:
            await stream.send_all(b'{"question":"much"}\n')
            with trio.fail_after(30):
                while not broker.counters["admin.cut_off"]:  # noqa: ASYNC110
                    await trio.sleep(0.01)
        monkeypatch.undo()
        assert await asked(tmp_path, "hello")


async def test_a_question_with_a_fault_ends_one_connection_only(served, tmp_path, monkeypatch):
    monkeypatch.setitem(QUESTIONS, "fault", lambda broker, params: 1 / 0)
    async with served(tmp_path) as broker:
        with pytest.raises(NoBroker, match="ended before it had answered"):
            await asked(tmp_path, "fault")
        assert ("error", "a question to the broker failed") in broker.log.lines
        assert await asked(tmp_path, "hello")


async def test_a_long_answer_lets_others_have_their_turn(served, tmp_path, monkeypatch):
    turns = 0
    amid = set()

    def slowly():
        for number in range(200):
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass
            amid.add(turns)
            yield PAUSE if number % 2 else number

    monkeypatch.setitem(QUESTIONS, "long", lambda broker, params: slowly())

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with served(tmp_path), trio.open_nursery() as nursery:
        nursery.start_soon(count)
        assert await asked(tmp_path, "long") == list(range(0, 200, 2))
        nursery.cancel_scope.cancel()
    assert len(amid) > 20, "no more of these than five are as long as a slice"


async def test_an_error_amid_a_long_answer_is_an_error(served, tmp_path, monkeypatch):
    def failing():
        yield 1
        raise NotFound("it went")

    monkeypatch.setitem(QUESTIONS, "failing", lambda broker, params: failing())
    async with served(tmp_path):
        with pytest.raises(NotFound, match="it went"):
            await asked(tmp_path, "failing")


async def test_a_change_is_answered_when_it_is_on_disk(served, tmp_path, monkeypatch):
    async def change(broker, params):
        broker.engine.kept.put_state("admin", "key", b"value")
        await on_disk(broker)
        return bool(broker.engine.batch)

    monkeypatch.setitem(QUESTIONS, "change", change)
    async with served(tmp_path):
        assert await asked(tmp_path, "change") is False


async def test_a_refusal_from_an_awaited_answer_is_told(served, tmp_path, monkeypatch):
    async def refuse(broker, params):
        await trio.lowlevel.checkpoint()
        raise GatewayError("no")

    monkeypatch.setitem(QUESTIONS, "refuse", refuse)
    async with served(tmp_path):
        with pytest.raises(GatewayError, match=r"^no$"):
            await asked(tmp_path, "refuse")


async def test_a_path_too_long_for_a_socket_is_led_to_a_short_one(served, tmp_path):
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    async with served(directory) as broker:
        assert [path.name for path in directory.iterdir()] == ["control.path"]
        assert (await asked(directory, "hello"))["node"] == broker.node_id
    assert list(directory.iterdir()) == []


async def test_what_a_killed_broker_left_behind_is_no_broker_and_no_hindrance(served, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "control.sock"))
    with pytest.raises(NoBroker, match="no broker answers"):
        ask(tmp_path, "hello")
    async with served(tmp_path):
        assert await asked(tmp_path, "hello")


async def test_a_second_broker_leaves_the_first_ones_socket_alone(served, tmp_path):
    async with served(tmp_path) as first:
        async with served(tmp_path) as second:
            assert ("warning", "the broker can't be asked anything: there is no control socket") in second.log.lines
        assert (await asked(tmp_path, "hello"))["node"] == first.node_id


async def test_a_directory_that_is_not_there_is_no_reason_not_to_start(served, tmp_path):
    async with served(tmp_path / "none") as broker:
        assert broker.log.lines[0][0] == "info"
    assert not (tmp_path / "none").exists()


async def test_what_is_no_broker_at_the_socket_is_said_so(tmp_path):
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"220 mail\n")

    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(tmp_path / "control.sock"))
    bound.listen()
    bound.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        with pytest.raises(NoBroker, match="no broker of this version"):
            await asked(tmp_path, "hello")
        nursery.cancel_scope.cancel()
